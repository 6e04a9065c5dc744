#!/bin/sh
# Makes this machine trust an entrepot cache's CA, and nothing else. Run it as root.
#
#   curl -fsS http://PROXY:3128/setup/ca | sh
#   curl -fsS 'http://PROXY:3128/setup/ca?undo' | sh
#
# Options (as arguments, or in the environment):
#   --check URL   ENTREPOT_CHECK   what to ask for through the proxy before anything is restarted;
#                                  https://registry-1.docker.io/v2/ unless given, "no" for no check
#   --undo                         remove what this script made
#   --dry-run                      say what would be done, file by file, and change nothing
#   --help                         print this
#
# This script and the certificate come from the same place: compare the fingerprint below with what
# `entrepot ca show` prints on the proxy's own machine.

set -eu

