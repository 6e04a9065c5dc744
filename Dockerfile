# The image of entrepot: the program, the libraries that it links to, and the roots that it trusts
# upstream. Nothing else is in it, no shell either. `make image` builds it for this machine,
# `make images` for amd64 and arm64: nothing below names a platform, and Debian's images have both.

# The place to build at: Debian with a Rust toolchain.
ARG BUILD_IMAGE=docker.io/library/rust:1.95-bookworm

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin entrepot \
 && scripts/image-root target/release/entrepot /image

FROM scratch
LABEL org.opencontainers.image.title="entrepot" \
      org.opencontainers.image.description="A caching HTTPS forward proxy for container-registry traffic" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /image/root/ /
# Named volumes take over the owner. The program starts as root, gives a directory of the host that is
# root's to this user, and goes on as this user, or as the directory's own.
COPY --from=build --chown=65532:65532 /image/volumes/ /
# Below it lie ca and cache, unless the configuration says otherwise.
ENV STATE_DIRECTORY=/ \
    ENTREPOT_RUN_AS=65532:65532
VOLUME ["/ca", "/cache"]
EXPOSE 3128
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s \
    CMD ["/usr/bin/entrepot", "check", "--alive"]
ENTRYPOINT ["/usr/bin/entrepot"]
CMD ["serve"]
