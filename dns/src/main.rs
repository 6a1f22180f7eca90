//! `switchyard-dns`: see `docs/dns.md`.

use std::path::Path;

use anyhow::Context;
use switchyard_dns::corefile;
use switchyard_dns::plugin::Environment;
use switchyard_dns::server::{Configuration, Listeners};

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let path = std::env::args()
        .skip_while(|argument| argument != "-conf")
        .nth(1);
    let path = path.context("expected -conf FILE")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let environment = Environment::default();
        let corefile = corefile::load(Path::new(&path))?;
        let configuration = Configuration::new(&corefile, &environment)?;
        let mut listeners = Listeners::new(tokio::runtime::Handle::current());
        listeners.apply(configuration.plans)?;
        for plugin in &configuration.plugins {
            plugin.start();
        }
        tokio::select! {
            signal = tokio::signal::ctrl_c() => Ok(signal?),
            reason = environment.fatal.reason() => anyhow::bail!("{reason}"),
        }
    })
}
