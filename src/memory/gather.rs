//! A document that is wanted whole, as it comes.

use bytes::Bytes;

use super::{Account, NoRoom, Room};

/// How much of a document draws from no budget: it is a part of what a connection costs, and what
/// is usual never waits for what others have under way.
const UNDRAWN: usize = 16 * 1024;
/// By no more at a time does one get room.
const STEP: usize = 1024 * 1024;

/// What has come of a document. It draws by what is there, never by what was announced.
pub(crate) struct Gathered {
    bytes: Vec<u8>,
    room: Room,
}

impl Gathered {
    /// Nothing yet, on this account.
    pub(crate) fn new(account: &Account) -> Self {
        Self { bytes: Vec::new(), room: account.nothing() }
    }

    /// How much has come.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes what came next; waits a while for the room. Cancel safe.
    pub(crate) async fn push(&mut self, piece: &[u8]) -> Result<(), NoRoom> {
        let (capacity, needed) = (self.bytes.capacity(), self.bytes.len() + piece.len());
        if needed > capacity {
            let wanted = needed.max(capacity + capacity.min(STEP));
            if wanted > UNDRAWN {
                self.room.grow(wanted).await?;
            }
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    /// All of it, which takes its room until the last handle is dropped.
    pub(crate) fn finish(self) -> Bytes {
        let Self { bytes, room } = self;
        room.hold(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Memory, Shares};

    #[tokio::test(start_paused = true)]
    async fn a_document_draws_by_what_is_there_of_it() {
        let memory = Memory::new(Shares::new(Some(0)));
        let client = memory.budget.account(Some([10, 0, 0, 1].into()));
        let mut kept = Vec::new();
        for _ in 0..200 {
            let mut usual = Gathered::new(&client);
            usual.push(&[7; 10_000]).await.unwrap();
            kept.push(usual.finish());
        }
        let mut large = Vec::new();
        loop {
            let mut one = Gathered::new(&client);
            let mut pushed = Ok(());
            for _ in 0..800 {
                pushed = one.push(&[7; 10_000]).await;
                if pushed.is_err() {
                    break;
                }
            }
            if pushed.is_err() {
                break;
            }
            assert_eq!(one.len(), 8_000_000);
            large.push(one.finish());
        }
        assert_eq!(large.len(), 1, "a quarter of 48 MiB");
        let other = memory.budget.account(Some([10, 0, 0, 2].into()));
        Gathered::new(&other).push(&vec![7; 8_000_000]).await.unwrap();
        drop(large);
        Gathered::new(&client).push(&vec![7; 8_000_000]).await.unwrap();
    }
}
