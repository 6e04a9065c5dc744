//! Asking a registry: as whom, with which token, how often, and what it answered.
//!
//! Knows records of the store, but nothing of a client's request or of the answer to it: what may
//! be served to whom is the gateway's to decide, and what a refusal means there.
//!
//! - `client`: one who asks a registry, and the answer after tokens and redirects
//! - `identity`: as whom a request is sent
//! - `challenge`: how registries want to be authenticated to
//! - `own_tokens`: tokens of the proxy itself
//! - `login`: trying the operator's credentials
//! - `token_server`: asking a token server
//! - `credentials`: where the operator's logins come from
//! - `refusals`: what was refused a moment ago is not asked again
//! - `pressure`, `quota`: registries that want to be left alone, and how many pulls are left
//! - `states`: what is wrong with which registry, since when and why
//! - `fields`: which header fields go to a registry, and which come back
//! - `answer`: what an answer says
//! - `options`: what the operator has said of a registry
//! - `fuzzing`: what fuzz targets feed of it

pub(crate) mod answer;
mod challenge;
mod client;
pub(crate) mod credentials;
pub(crate) mod fields;
#[cfg(fuzzing)]
pub mod fuzzing;
pub(crate) mod identity;
mod login;
mod options;
mod own_tokens;
mod pressure;
mod quota;
mod refusals;
mod states;
pub(crate) mod token_server;

pub(crate) use challenge::Authentication;
pub(crate) use client::{Client, Registries};
pub(crate) use login::{Tried, try_login};
pub(crate) use options::{Options, RegistryRule};
pub(crate) use quota::Quota;
pub(crate) use states::{RegistryState, State};
