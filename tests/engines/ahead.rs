//! What `entrepot pull` has brought in is there for an engine when the registry is not.

use anyhow::{Result, ensure};

use crate::dockerd::Dockerd;
use crate::engine::Engine;
use crate::private::World;

#[test]
fn dockerd_pulls_what_was_brought_in_when_the_hub_is_gone() -> Result<()> {
    let mut world = World::start()?;
    let name = world.public.name();
    let pulled = world.proxy.run(&["pull", &name]);
    ensure!(pulled.code == Some(0), "{}", pulled.output);
    world.hub.stop();
    let engine = Dockerd::start(world.directory("dockerd")?, Some(&world.access))?;
    let known = engine.pull(&world.public)?;
    ensure!(known.contains(&world.public.native()?.config), "{known:?}");
    Ok(())
}
