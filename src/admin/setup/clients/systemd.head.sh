#!/bin/sh
# Points the container engine of this machine at an entrepot cache, or undoes that. Run it as root.
# It restarts the engine: dockerd without "live-restore" stops its containers for that.
#
#   curl -fsS http://PROXY:3128/setup/systemd | sh
#   curl -fsS http://PROXY:3128/setup/systemd | sh -s -- --unit containerd.service
#   curl -fsS 'http://PROXY:3128/setup/systemd?undo' | sh
#
# Options (as arguments, or in the environment):
#   --unit NAME   ENTREPOT_UNIT    the engine's systemd unit; docker.service unless given
#   --check URL   ENTREPOT_CHECK   what to ask for through the proxy before the engine is restarted;
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

