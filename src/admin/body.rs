//! What the admin listener sends: a document, or lines as they come.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use crate::gateway::ResponseBody;
use crate::gateway::body::ResponseError;

/// A body of the admin listener.
pub enum AdminBody {
    /// All of it.
    Whole(ResponseBody),
    /// Lines, until their sender is gone.
    Lines(mpsc::Receiver<Bytes>),
}

impl From<ResponseBody> for AdminBody {
    fn from(body: ResponseBody) -> Self {
        Self::Whole(body)
    }
}

impl Body for AdminBody {
    type Data = Bytes;
    type Error = ResponseError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(cx),
            Self::Lines(lines) => lines.poll_recv(cx).map(|line| line.map(|l| Ok(Frame::data(l)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Lines(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Lines(_) => SizeHint::default(),
        }
    }
}
