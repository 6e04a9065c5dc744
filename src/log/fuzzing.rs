//! What fuzz targets feed: the line of a request, in both formats.

use std::io::{self, Write};
use std::sync::Arc;

use parking_lot::Mutex;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt as _;

use super::line::RequestLine;
use super::text::Text;

/// The line for people, and the one for machines.
#[must_use]
pub fn written(line: &RequestLine) -> (String, String) {
    let (text, json) = (Written::default(), Written::default());
    let for_people = layer().event_format(Text { colour: false, shows_ids: || false });
    let for_machines = layer().json().flatten_event(true);
    let subscriber = tracing_subscriber::registry()
        .with(for_people.with_writer(text.maker()))
        .with(for_machines.with_writer(json.maker()));
    tracing::subscriber::with_default(subscriber, || line.emit());
    (text.text(), json.text())
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    fn maker(&self) -> impl Fn() -> Self + Send + Sync + use<> {
        let written = self.clone();
        move || written.clone()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
