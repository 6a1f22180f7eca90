//! What an operator meets of a running proxy: events, health by the Node object, capabilities.

mod command_line;
mod eligibility;
mod events;
mod metrics_access;
mod privileges;
mod stage;
