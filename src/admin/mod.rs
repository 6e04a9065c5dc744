//! What people and their tools ask of the proxy itself: its pages, the set-up scripts, health.
//!
//! - `pages`: origin-form requests on the proxy's listener; nothing there changes anything
//! - `front`: the first of them, for people
//! - `server`: the admin listener
//! - `setup`: scripts that set clients up

mod front;
pub mod pages;
pub mod server;
pub mod setup;
