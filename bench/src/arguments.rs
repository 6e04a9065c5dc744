//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use crate::image::Shape;
use crate::peers::Kind;
use crate::size::Bytes;

/// Measures entrepot beside what else is found on this machine, and prints one table.
#[derive(Debug, Parser)]
#[command(name = "entrepot-bench", args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    /// What to be for another run of this program.
    #[command(subcommand)]
    pub(crate) role: Option<Role>,
    #[command(flatten)]
    pub(crate) options: Options,
}

/// What this program starts itself as.
#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// The registry.
    #[command(hide = true)]
    ServeOrigin { dir: PathBuf },
    /// The practical limit.
    #[command(hide = true)]
    ServeCeiling { dir: PathBuf },
}

/// What is measured, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How often everything is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) reps: u32,
    /// How long a run of a block that has no end of its own lasts
    #[arg(long, default_value = "2", value_parser = seconds)]
    pub(crate) seconds: Duration,
    /// What is measured
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Block::value_variants().to_vec())]
    pub(crate) blocks: Vec<Block>,
    /// On which programs; those that are not installed are left out
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Kind::value_variants().to_vec())]
    pub(crate) targets: Vec<Kind>,
    /// The binary to measure (else $`ENTREPOT_BIN`, else the one beside this program)
    #[arg(long)]
    pub(crate) entrepot: Option<PathBuf>,
    /// A file for every run's figures, a line of JSON each
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Where the temporary directory is made
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Large layers of the image
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) large: u64,
    /// How large these are
    #[arg(long, default_value = "64MiB")]
    pub(crate) large_size: Bytes,
    /// Small layers of the image
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) small: u64,
    /// How large these are
    #[arg(long, default_value = "200KiB")]
    pub(crate) small_size: Bytes,
    /// How large a blob is that nobody has
    #[arg(long, default_value = "64MiB")]
    pub(crate) cold_size: Bytes,
    /// How many bytes a second the registry then sends, over all connections
    #[arg(long, default_value = "200000000")]
    pub(crate) cold_rate: Bytes,
    /// How many clients ask for it at once
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 32])]
    pub(crate) cold: Vec<usize>,
    /// How many connections are held
    #[arg(long, value_delimiter = ',', default_values_t = [1000])]
    pub(crate) idle: Vec<usize>,
    /// How many connections ask at once
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 100, 1000])]
    pub(crate) connections: Vec<usize>,
    /// How many replicas a crowd asks at once
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(2..))]
    pub(crate) replicas: u64,
    /// How many clients each of them has then
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) crowd: u64,
    /// How many objects a store has
    #[arg(long, value_delimiter = ',', default_values_t = [1000, 10_000, 100_000])]
    pub(crate) objects: Vec<u64>,
    /// Leave server and client where the kernel puts them
    #[arg(long)]
    pub(crate) unpinned: bool,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Block {
    /// Large blobs that are kept
    Hit,
    /// Small ones
    Small,
    /// The manifest, by digest and by tag
    Manifest,
    /// The manifest, on a new connection each time
    Handshake,
    /// Parts of a large blob
    Range,
    /// The manifest, over few and many connections
    Connections,
    /// Blobs that nobody has yet
    Cold,
    /// Connections on which nothing happens
    Idle,
    /// What a large store costs
    Objects,
    /// Replicas behind a bucket
    Bucket,
}

impl Options {
    /// The image's shape.
    pub(crate) fn shape(&self) -> Shape {
        Shape {
            large: self.large,
            large_bytes: self.large_size.0,
            small: self.small,
            small_bytes: self.small_size.0,
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    Duration::try_from_secs_f64(number).map_err(|error| error.to_string())
}
