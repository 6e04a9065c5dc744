#!/bin/sh
# Points Podman, Buildah and CRI-O of this machine at an entrepot cache, and makes Skopeo trust it;
# or undoes that. Run it as root.
#
#   curl -fsS http://PROXY:3128/setup/podman | sh
#   curl -fsS http://PROXY:3128/setup/podman | sh -s -- --mirror
#   curl -fsS 'http://PROXY:3128/setup/podman?undo' | sh
#
# Options (as arguments, or in the environment):
#   --unit NAME   ENTREPOT_UNIT    CRI-O's systemd unit; crio.service unless given
#   --mirror      ENTREPOT_MIRROR=yes
#                                  as a mirror of the best-known registries, by TLS, for public images
#   --insecure    ENTREPOT_INSECURE=yes
#                                  speak plain HTTP with the mirror: whoever is on the way chooses the images
#   --check URL   ENTREPOT_CHECK   what to ask for through the proxy before anything is restarted;
#                                  https://registry-1.docker.io/v2/ unless given, "no" for no check
#   --no-restart  ENTREPOT_RESTART=no
#                                  change the settings, and leave the engine's restart to you
#   --undo                         remove what this script made
#   --dry-run                      say what would be done, file by file, and change nothing
#   --help                         print this
#                 NO_PROXY         added to the list of what the engine reaches without the proxy
#
# This script and the certificate come from the same place: compare the fingerprint below with what
# `entrepot ca show` prints on the proxy's own machine.

set -eu

