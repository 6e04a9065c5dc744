#!/bin/sh
# Points the nodes of a kind cluster on this machine at an entrepot cache, or undoes that. It has to
# be run again for new nodes.
#
#   curl -fsS http://PROXY:3128/setup/kind | sh
#   curl -fsS 'http://PROXY:3128/setup/kind?undo' | sh
#
# Options (as arguments, or in the environment):
#   --name CLUSTER ENTREPOT_NAME   the cluster; all of them unless given
#   --check URL   ENTREPOT_CHECK   what to ask for through the proxy before anything is restarted;
#                                  https://registry-1.docker.io/v2/ unless given, "no" for no check
#   --no-restart  ENTREPOT_RESTART=no
#                                  change the settings, and leave containerd's restart to you
#   --undo                         remove what this script made
#   --dry-run                      say what would be done, file by file, and change nothing
#   --help                         print this
#                 NO_PROXY         added to the list of what the engine reaches without the proxy
#
# This script and the certificate come from the same place: compare the fingerprint below with what
# `entrepot ca show` prints on the proxy's own machine.

set -eu

