//! What a Kubernetes cluster says about its Services.
//!
//! - [`object`]: the objects, cut down to the fields we use.
//! - [`decode`]: from the API's JSON to those.
//! - [`review`]: whose a token is, and what they may read.
//! - [`source`]: where they come from: the API server, or a directory of manifests.
//! - [`events`]: what is told at objects, where an API server is.
//! - [`journal`]: what an operator should hear of that.
//! - [`update`]: what a source says, one step at a time.
//! - [`store`]: the last known state, and which Services an update made dirty.
//!
//! A source (the API server, or a directory of manifests) sends [`update::Update`]s in
//! order; the owner of a [`store::Store`] applies them and acts on the [`store::Change`]s,
//! but only once [`store::Store::synced`] says that the first list of every kind is in.

pub mod decode;
pub mod events;
pub mod interner;
pub mod journal;
pub mod object;
pub mod review;
pub mod source;
pub mod store;
pub mod update;
