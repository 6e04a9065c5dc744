//! The practical ceiling: nothing but TLS and a file. No cache could do with less work.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use crate::image;
use crate::serve::Answers;
use crate::wire::Head;

/// Serves the files of an image's directory, whole.
#[derive(Debug)]
pub(crate) struct Ceiling {
    pub(crate) dir: PathBuf,
}

impl Answers for Ceiling {
    async fn answer(
        &self,
        request: &Head,
        to: &mut (impl AsyncWrite + Unpin + Send),
        room: &mut [u8],
    ) -> io::Result<()> {
        let reference = request.target().rsplit('/').next().unwrap_or_default();
        let Some(path) = image::find(&self.dir, reference) else {
            return to.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
        };
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        to.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n").as_bytes())
            .await?;
        let mut at = 0;
        while at < size {
            let read = file.read_at(room, at)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            to.write_all(room.get(..read).unwrap_or_default()).await?;
            at += read as u64;
        }
        to.flush().await
    }
}
