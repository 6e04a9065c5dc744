#!/bin/sh
# Shows that this machine pulls through an entrepot cache: that the proxy is reached and trusted, and
# that each container engine here pulls one small image through it, the second time from the cache.
# It needs no root where the engines need none, changes no setting, and removes what it pulls.
#
#   curl -fsS http://PROXY:3128/check | sh
#   curl -fsS http://PROXY:3128/check | sh -s -- --engine docker --image alpine:3.20
#
# Options:
#   --image NAME    what is pulled; unless given a small image that the proxy keeps, else hello-world
#   --engine NAME   docker, podman, containerd, nerdctl, buildah, skopeo, or none; unless given each
#                   that is here
#   --help          print this
#
# Environment:
#   ENTREPOT_PROXY_USER   NAME:PASSWORD, where the proxy asks for users (access.htpasswd)
#
# Exit code: 0 all is well, 1 something is not (with what to do about it).

set -eu

