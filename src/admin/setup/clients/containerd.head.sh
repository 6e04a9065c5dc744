#!/bin/sh
# Points this machine's containerd at an entrepot cache, or undoes that. Run it as root.
#
#   curl -fsS http://PROXY:3128/setup/containerd | sh
#   curl -fsS http://PROXY:3128/setup/containerd | sh -s -- --mirror
#   curl -fsS 'http://PROXY:3128/setup/containerd?undo' | sh
#
# Options (as arguments, or in the environment):
#   --unit NAME   ENTREPOT_UNIT    containerd's systemd unit; containerd.service unless given
#   --mirror      ENTREPOT_MIRROR=yes
#                                  as a mirror of every registry, for public images alone. From http://
#                                  it needs no CA, and what tags stand for is asked of the registries
#   --tls         ENTREPOT_TLS=yes ask the mirror by TLS, with the CA, and for tags as well
#   --insecure    ENTREPOT_INSECURE=yes
#                                  ask it for tags by plain HTTP: whoever is on the way to it chooses
#                                  the images
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

