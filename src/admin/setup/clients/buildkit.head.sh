#!/bin/sh
# Makes an entrepot cache the mirror of this machine's BuildKit, or undoes that. Run it as root.
# A mirror, since what a builder is told of proxies it tells its builds, which lack the CA. The
# mirror is asked by TLS, of which builds see nothing.
#
#   curl -fsS http://PROXY:3128/setup/buildkit | sh
#   curl -fsS 'http://PROXY:3128/setup/buildkit?undo' | sh
#
# Options (as arguments, or in the environment):
#   --unit NAME   ENTREPOT_UNIT    buildkitd's systemd unit; buildkit.service unless given
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

