//! A stretch of network that fails: a TCP proxy that cuts its connections after a number of bytes, holds up what clients ask, or alters it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Forwards a port of the loopback interface to another until dropped.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    is_cutting: AtomicBool,
    cut_count: AtomicU64,
    is_over: AtomicBool,
    held: Mutex<Held>,
    released: Condvar,
    alter: OnceLock<fn(&mut [u8])>,
}

#[derive(Default)]
struct Held {
    /// What clients send with one of these texts in it does not arrive.
    texts: Vec<String>,
    /// What waits for that reason.
    waiting: Vec<String>,
}

/// What is left of a connection.
struct Left {
    bytes: AtomicU64,
    is_cut: AtomicBool,
}

impl Shared {
    /// Waits while what is sent is not to arrive.
    fn pass(&self, sent: &[u8]) {
        let mut held = self.held.lock().expect("the proxy's lock");
        let has = |text: &String| sent.windows(text.len()).any(|window| window == text.as_bytes());
        let Some(text) = held.texts.iter().find(|text| has(text)).cloned() else { return };
        held.waiting.push(text.clone());
        while held.texts.contains(&text) {
            held = self.released.wait(held).expect("the proxy's lock");
        }
        held.waiting.retain(|waiting| *waiting != text);
    }
}

/// A cut in four comes while a session still starts, the others later: by the number's order of magnitude, so that a transaction which is larger than most
/// connections live for comes through at last.
const EARLY_BYTES_MAX: u64 = 4_000;
const LATE_BYTES_MAX: u64 = 4_000_000;

fn bytes_until_cut(random: &mut StdRng) -> u64 {
    if random.random_ratio(1, 4) {
        return random.random_range(1..=EARLY_BYTES_MAX);
    }
    (EARLY_BYTES_MAX as f64 * (LATE_BYTES_MAX as f64 / EARLY_BYTES_MAX as f64).powf(random.random())) as u64
}

impl Proxy {
    /// Forwards to `target`. Nothing is cut before [`Proxy::cut`] says so. `seed` decides where.
    pub fn start(target: u16, seed: u64) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", crate::free_port())).expect("a port for the proxy");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            let mut random = StdRng::seed_from_u64(seed);
            for client in listener.incoming().flatten() {
                if accepting.is_over.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                // Counted over both directions together: what the client sends is cut, too.
                let left = Arc::new(Left { bytes: AtomicU64::new(bytes_until_cut(&mut random)), is_cut: AtomicBool::new(false) });
                forward(&client, &server, &left, &accepting, true);
                forward(&server, &client, &left, &accepting, false);
            }
        });
        Proxy { port, shared }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Begins to cut, or ends.
    pub fn cut(&self, is_cutting: bool) {
        self.shared.is_cutting.store(is_cutting, Ordering::Relaxed);
    }

    /// Holds up whatever a client sends with this text in it, until [`Proxy::release`].
    pub fn hold(&self, text: &str) {
        self.shared.held.lock().expect("the proxy's lock").texts.push(text.to_owned());
    }

    /// Says whether something waits because of this text.
    pub fn holds(&self, text: &str) -> bool {
        self.shared.held.lock().expect("the proxy's lock").waiting.iter().any(|waiting| waiting == text)
    }

    /// Has what clients send altered from now on, once and for all.
    pub fn alter(&self, alter: fn(&mut [u8])) {
        assert!(self.shared.alter.set(alter).is_ok(), "it is altered already");
    }

    /// Lets what has this text in it through.
    pub fn release(&self, text: &str) {
        let mut held = self.shared.held.lock().expect("the proxy's lock");
        held.texts.retain(|held| held != text);
        self.shared.released.notify_all();
    }

    /// How many connections were cut.
    pub fn cut_count(&self) -> u64 {
        self.shared.cut_count.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.shared.held.lock().expect("the proxy's lock").texts.clear();
        self.shared.released.notify_all();
        // Wakes the listener.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// Copies one direction on a thread of its own, as long as `left` lasts.
fn forward(from: &TcpStream, to: &TcpStream, left: &Arc<Left>, shared: &Arc<Shared>, is_client: bool) {
    let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else { return };
    let (left, shared) = (Arc::clone(left), Arc::clone(shared));
    std::thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        loop {
            let size = match from.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(size) => size,
            };
            if is_client {
                shared.pass(&buffer[..size]);
                if let Some(alter) = shared.alter.get() {
                    alter(&mut buffer[..size]);
                }
            }
            let mut allowed = size;
            if shared.is_cutting.load(Ordering::Relaxed) {
                let before = left.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(size as u64)));
                allowed = before.unwrap_or_else(|left| left).min(size as u64) as usize;
            }
            // A part of a message arrives, and then nothing.
            if to.write_all(&buffer[..allowed]).is_err() {
                break;
            }
            if allowed < size {
                // The other direction may find out, too.
                if !left.is_cut.swap(true, Ordering::Relaxed) {
                    shared.cut_count.fetch_add(1, Ordering::Relaxed);
                }
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
}
