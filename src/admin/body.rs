//! What the admin listener sends: a document, lines as they come, or an archive.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use crate::gateway::ResponseBody;
use crate::gateway::ResponseError;
use crate::images::export::{Coming, ExportError};

/// A body broke off: the connection is closed so that nobody takes it for whole.
#[derive(Debug, thiserror::Error)]
pub enum AdminBodyError {
    /// A document could not be sent.
    #[error(transparent)]
    Document(#[from] ResponseError),
    /// An archive could not be completed.
    #[error(transparent)]
    Archive(Box<ExportError>),
}

impl From<ExportError> for AdminBodyError {
    fn from(error: ExportError) -> Self {
        Self::Archive(Box::new(error))
    }
}

/// A body of the admin listener.
pub enum AdminBody {
    /// All of it.
    Whole(ResponseBody),
    /// Lines, until their sender is gone.
    Lines(mpsc::Receiver<Bytes>),
    /// An archive.
    Archive(Coming),
}

impl From<ResponseBody> for AdminBody {
    fn from(body: ResponseBody) -> Self {
        Self::Whole(body)
    }
}

impl Body for AdminBody {
    type Data = Bytes;
    type Error = AdminBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AdminBodyError>>> {
        match self.get_mut() {
            Self::Whole(body) => {
                Pin::new(body).poll_frame(cx).map(|frame| frame.map(|f| f.map_err(Into::into)))
            }
            Self::Lines(lines) => lines.poll_recv(cx).map(|line| line.map(|l| Ok(Frame::data(l)))),
            Self::Archive(archive) => archive
                .poll_next(cx)
                .map(|piece| piece.map(|p| p.map(Frame::data).map_err(Into::into))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Lines(_) | Self::Archive(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Lines(_) | Self::Archive(_) => SizeHint::default(),
        }
    }
}
