//! Connections: accepted within limits, their requests admitted, routed and answered.

use crate::admit::Door;
use crate::answer::{self, Answer};
use crate::exec::Execs;
use crate::limits::{
    ACCEPT_PAUSE, CONNECTIONS_MAX, HEAD_BYTES_MAX, HEAD_WAIT, REFUSED_CONNECTIONS_MAX,
};
use crate::listen::Doors;
use crate::log::Log;
use crate::owner::Owner;
use crate::routes::{self, Op};
use crate::{Desk, Listening, Places, Refusal, ServeError};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use runtime::Home;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What every request has at hand.
pub(crate) struct Service {
    pub(crate) home: Home,
    pub(crate) owner: Owner,
    pub(crate) log: Log,
    pub(crate) desk: Arc<dyn Desk>,
    pub(crate) execs: Execs,
}

/// Serves a home until it is told to end. `told` learns where it listens.
///
/// # Errors
/// When it cannot listen, or the home has no owner and none can be started.
pub fn serve(
    home: &Home,
    exe: PathBuf,
    places: &Places,
    desk: impl Desk,
    told: impl FnOnce(&Listening),
) -> Result<(), Refusal> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("the server's threads can be started");
    runtime.block_on(async {
        home.prepare()?;
        let owner = Owner::of(home.clone(), exe);
        let mut doors = Doors::open(home, places).await?;
        // A host that cannot run anything says so now.
        drop(owner.connect().await?);
        let log = Log::open(home.path())?;
        let (home, desk, execs) = (home.clone(), Arc::new(desk), Execs::default());
        let service = Service { home, owner, log, desk, execs };
        let service = Arc::new(service);
        let mut ends = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
        if let Some(unix) = doors.unix.take() {
            tokio::spawn(accept_local(Arc::clone(&service), unix));
        }
        if let Some((tcp, door)) = doors.tcp.take() {
            tokio::spawn(accept_tcp(service, tcp, door));
        }
        told(&doors.listening);
        let [interrupted, terminated] = &mut ends;
        tokio::select! {
            () = came(interrupted) => {}
            () = came(terminated) => {}
        }
        drop(doors);
        Ok(())
    })
}

async fn came(signal: &mut std::io::Result<tokio::signal::unix::Signal>) {
    match signal {
        Ok(signal) => drop(signal.recv().await),
        Err(_) => std::future::pending().await,
    }
}

/// Room for connections of one address.
struct Room {
    served: Arc<Semaphore>,
    refused: Arc<Semaphore>,
}

impl Room {
    fn new() -> Self {
        let room = |count| Arc::new(Semaphore::new(count));
        Self { served: room(CONNECTIONS_MAX), refused: room(REFUSED_CONNECTIONS_MAX) }
    }

    /// A place for a connection, and whether it is served there; `None`: it is closed.
    fn take(&self) -> Option<(OwnedSemaphorePermit, bool)> {
        let place = |room: &Arc<Semaphore>| Arc::clone(room).try_acquire_owned().ok();
        let served = place(&self.served).map(|permit| (permit, true));
        served.or_else(|| place(&self.refused).map(|permit| (permit, false)))
    }
}

async fn accept_local(service: Arc<Service>, listener: UnixListener) {
    let room = Room::new();
    let us = rustix::process::geteuid().as_raw();
    // The mode of the socket keeps others out; the kernel's word is asked for besides.
    let ours = |stream: &UnixStream| {
        stream.peer_cred().is_ok_and(|peer| peer.uid() == us || peer.uid() == 0)
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) if ours(&stream) => admit(&service, &room, stream, Door::Local),
            Ok(_) => {}
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn accept_tcp(service: Arc<Service>, listener: TcpListener, door: Door) {
    let room = Room::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                admit(&service, &room, stream, door.clone());
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

fn admit<S>(service: &Arc<Service>, room: &Room, stream: S, door: Door)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Some((place, served)) = room.take() else {
        return;
    };
    let (service, door) = (Arc::clone(service), Arc::new(door));
    tokio::spawn(async move {
        let each = service_fn(move |request| {
            let (service, door) = (Arc::clone(&service), Arc::clone(&door));
            async move {
                let answered = match served {
                    true => service.answer(&door, request).await,
                    false => Err(ServeError::TooManyConnections { limit: CONNECTIONS_MAX }.into()),
                };
                Ok::<_, Infallible>(answered.unwrap_or_else(|refused| answer::refusal(&refused)))
            }
        });
        // An error here is the other side's leaving, or a head that is none.
        let _ = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WAIT)
            .max_buf_size(HEAD_BYTES_MAX)
            .keep_alive(served)
            .serve_connection(TokioIo::new(stream), each)
            .await;
        drop(place);
    });
}

impl Service {
    async fn answer(
        self: &Arc<Self>,
        door: &Door,
        request: Request<Incoming>,
    ) -> Result<Answer, Refusal> {
        door.faces(request.headers())?;
        let found = routes::find(request.method().as_str(), request.uri().path());
        // Who may not ask learns nothing of what there is.
        if !matches!(found, Ok((Op::Openapi, _))) {
            door.opens(request.headers())?;
        }
        let (op, values) = found?;
        Box::pin(self.perform(op, values, request)).await
    }
}
