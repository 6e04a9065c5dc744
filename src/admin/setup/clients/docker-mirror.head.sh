#!/bin/sh
# Makes an entrepot cache the Docker Hub mirror of this machine's dockerd. Run it as root.
# It is for the Hub's public images, by TLS; /setup/systemd is for all registries. Where the CA is
# new to this machine dockerd is restarted, else it only reads its settings again.
#
#   curl -fsS http://PROXY:3128/setup/docker-mirror | sh
#   curl -fsS 'http://PROXY:3128/setup/docker-mirror?undo' | sh
#
# Options (as arguments, or in the environment):
#   --insecure    ENTREPOT_INSECURE=yes
#                                  speak plain HTTP with the mirror: whoever is on the way chooses the images
#   --check no    ENTREPOT_CHECK   no request to the mirror before anything is restarted
#   --no-restart  ENTREPOT_RESTART=no
#                                  change the settings, and leave the engine's restart to you
#   --undo                         remove what this script made
#   --dry-run                      say what would be done, file by file, and change nothing
#   --help                         print this
#
# This script and the certificate come from the same place: compare the fingerprint below with what
# `entrepot ca show` prints on the proxy's own machine.

set -eu

