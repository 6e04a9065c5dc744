//! The container engines that people use, as they are installed, pulling through a running
//! entrepot.
//!
//! Every test here has a world of its own, in a directory that goes away with it: a registry
//! (Debian's `docker-registry`, which plays Docker Hub), an entrepot in front of it, and a private
//! instance of the engine. Nothing outside this machine is contacted. The tests run as root, as
//! the engines do.
//!
//! - `site`: the registry and the proxy, and what may be asked of them
//! - `images`: the images that are pulled
//! - `engine`: the one behaviour that is asked of every engine
//! - `dockerd`, `buildkit`, `containerd`, `cri`, `podman`, `buildah`, `skopeo`: an engine each
//! - `way`: how an engine comes to the registry
//! - `proof`: what the proxy's own check says of them
//! - `words`: what they print where a pull fails
//! - `machine`, `whole_way`: each of them set up by the proxy's own script, and back
//! - `ahead`: what `entrepot pull` has brought in
//! - `air_gap`: images as archives, from one entrepot to another
//! - `sites`: a parent and edges that reach the registry through it
//! - `fleet`: replicas behind one bucket, with the registry gone
//! - `private`: names, passwords and tokens, with each of them
//! - `pushing`: who writes through the proxy reads what is written, whatever the registry has lost
//! - `conformance`: the conformance suite's requests, with the proxy as without it
//! - `container_image`: entrepot's own image, built and run
//! - `looking`: the status page of a container, from the machine that it runs on
//! - `process`: starting, watching and stopping programs

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the rules for what runs as a proxy are not for what tests it"
)]

mod ahead;
mod air_gap;
mod buildah;
mod buildkit;
mod conformance;
mod container_image;
mod containerd;
mod cri;
mod dockerd;
mod engine;
mod fleet;
mod images;
mod looking;
mod machine;
mod podman;
mod private;
mod process;
mod proof;
mod pushing;
mod site;
mod sites;
mod skopeo;
mod way;
mod whole_way;
mod words;
