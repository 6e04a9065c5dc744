//! From what is kept, or what a registry sends, to HTTP.
//!
//! - `served`: an answer, with where it came from
//! - `provenance`: where it came from, and why: one value for log, metrics and `Cache-Status`
//! - `object`: an object of the store as a response
//! - `ranges`: which part of an object is asked for
//! - `multipart`: several parts of it in one body
//! - `passed`: a registry's answer as it came
//! - `body`: the bodies that clients receive
//! - `stored`: a part of an object in the store
//! - `piece`: how large a piece a client gets at a time
//! - `verified`: an upstream's body that is checked while it is passed on
//! - `rescue`: bodies that go on from the registry when the store fails
//! - `addresses`: what an answer names leads back by the client's door
//! - `broken`: why a body broke off
//! - `errors`: failures, in the words that engines print

pub(super) mod addresses;
pub(super) mod body;
pub(super) mod broken;
pub(super) mod errors;
mod multipart;
pub(super) mod object;
pub(super) mod passed;
mod piece;
pub(super) mod provenance;
pub(super) mod ranges;
mod rescue;
pub(super) mod served;
mod stored;
mod verified;
