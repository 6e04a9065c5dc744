//! entrepot: a caching HTTPS forward proxy for container-registry traffic.
