//! A source that answers as the test says, to see what a target does with unknown outcomes.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use annulus_node::cluster::ClusterState;
use annulus_node::routing::Routing;
use annulus_proto::v1;
use annulus_proto::v1::peer_server::{Peer, PeerServer};
use annulus_ring::{Access, Incarnation, Slot};
use futures::Stream;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};

use crate::documents::{CLUSTER, document, handoff, member};
use crate::member::{TestMember, operator};

fn slot() -> Slot {
    Slot::new(5).unwrap()
}

/// How the source answers one commit.
#[derive(Clone, Copy)]
enum Answer {
    /// Yes.
    Yes,
    /// The yes is lost on its way.
    YesUnheard,
    /// An error that says nothing about the outcome.
    Unknown(Code),
    /// No: the freeze is over.
    No,
}

#[derive(Default)]
struct Script {
    answers: VecDeque<Answer>,
    prepared: u64,
    committed: Vec<u64>,
    cut_short: u64,
    target: Option<Arc<ClusterState>>,
    served_before_the_yes: bool,
}

struct FakeSource {
    script: Arc<Mutex<Script>>,
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Peer for FakeSource {
    async fn push_tenants(
        &self,
        _request: Request<v1::PushTenantsRequest>,
    ) -> Result<Response<v1::NodeReport>, Status> {
        Err(Status::unimplemented("a fake source knows no tenants"))
    }

    type WatchStream = Streamed<v1::NodeReport>;
    type PrepareSlotStream = Streamed<v1::SlotChunk>;
    type ReplicateStream = Streamed<v1::ReplicateReply>;
    type ExecuteStream = Streamed<v1::ExecuteReply>;

    async fn push_ring(&self, _: Request<v1::PushRingRequest>) -> Result<Response<v1::NodeReport>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn watch(&self, _: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn exchange(&self, _: Request<v1::ExchangeRequest>) -> Result<Response<v1::ExchangeReply>, Status> {
        Ok(Response::new(v1::ExchangeReply {
            sender: operator(CLUSTER),
        }))
    }

    async fn fetch_ring(
        &self,
        _: Request<v1::FetchRingRequest>,
    ) -> Result<Response<v1::FetchRingReply>, Status> {
        Err(Status::not_found("no ring"))
    }

    async fn prepare_slot(
        &self,
        _: Request<v1::PrepareSlotRequest>,
    ) -> Result<Response<Self::PrepareSlotStream>, Status> {
        let mut script = self.script.lock();
        script.prepared += 1;
        let attempt = script.prepared;
        let entry = |key: String| v1::Entry {
            tenant: 0,
            key: key.into(),
            expires_at_ms: 0,
            idle_ms: 0,
            value: Some(v1::entry::Value::Text("v".into())),
            continued: false,
        };
        let first = v1::SlotChunk {
            entries: vec![entry(format!("attempt-{attempt}"))],
            freeze_id: 0,
            keep_copy: false,
        };
        let last = v1::SlotChunk {
            entries: vec![],
            freeze_id: attempt,
            keep_copy: false,
        };
        let chunks = if attempt <= script.cut_short {
            vec![Ok(first)]
        } else {
            vec![Ok(first), Ok(last)]
        };
        Ok(Response::new(Box::pin(futures::stream::iter(chunks))))
    }

    async fn take_over(
        &self,
        _: Request<v1::TakeOverRequest>,
    ) -> Result<Response<v1::TakeOverReply>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn replicate(
        &self,
        _: Request<tonic::Streaming<v1::ReplicateRequest>>,
    ) -> Result<Response<Self::ReplicateStream>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn execute(
        &self,
        _: Request<tonic::Streaming<v1::ExecuteRequest>>,
    ) -> Result<Response<Self::ExecuteStream>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn publish(&self, _: Request<v1::PublishRequest>) -> Result<Response<v1::PublishReply>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn commit_slot(
        &self,
        request: Request<v1::CommitSlotRequest>,
    ) -> Result<Response<v1::CommitSlotReply>, Status> {
        let answer = {
            let mut script = self.script.lock();
            let target = script.target.as_ref();
            let served = target.is_some_and(|target| target.access(slot()) != Access::Elsewhere);
            script.served_before_the_yes |= served;
            script.committed.push(request.into_inner().freeze_id);
            script.answers.pop_front().unwrap_or(Answer::Yes)
        };
        match answer {
            Answer::Yes => Ok(Response::new(v1::CommitSlotReply {
                sender: operator(CLUSTER),
            })),
            Answer::YesUnheard => {
                // Longer than the target waits.
                tokio::time::sleep(Duration::from_mins(1)).await;
                Err(Status::cancelled("nobody hears this"))
            }
            Answer::Unknown(code) => Err(Status::new(code, "on purpose")),
            Answer::No => Err(Status::aborted("the freeze is over")),
        }
    }
}

/// Lets a target pull slot 5 from a source with that script; returns what the source saw.
async fn pull(mut script: Script) -> (TestMember, Arc<Mutex<Script>>) {
    let target = TestMember::start(1).await;
    script.target = Some(Arc::clone(&target.state));
    let script = Arc::new(Mutex::new(script));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let service = PeerServer::new(FakeSource {
        script: Arc::clone(&script),
    });
    tokio::spawn(
        tonic::transport::Server::builder().serve_with_incoming(service, TcpListenerStream::new(listener)),
    );
    let mut moving = document(1, &[member(0, Incarnation(7), 1, port), target.listed.clone()], 1);
    moving.handoffs = vec![handoff("5", 0, 1)];
    target.adopt(&moving);
    target.wait("settled", |progress| progress.settled).await;
    let served_before_the_yes = script.lock().served_before_the_yes;
    assert!(
        !served_before_the_yes,
        "only the source's yes lets the target serve the slot"
    );
    (target, script)
}

fn keys(target: &TestMember) -> Vec<String> {
    let guard = target.node.store.lock_slot(slot());
    guard
        .snapshot(0)
        .into_iter()
        .map(|entry| String::from_utf8(entry.key.into()).unwrap())
        .collect()
}

#[tokio::test]
async fn a_commit_of_unknown_outcome_is_repeated_and_the_slot_not_prepared_again() {
    let answers = VecDeque::from([
        Answer::Unknown(Code::Unavailable),
        Answer::YesUnheard,
        // Somebody else at the source's address: its no is not the source's.
        Answer::Unknown(Code::FailedPrecondition),
        Answer::Unknown(Code::Internal),
        Answer::Yes,
    ]);
    let (target, script) = pull(Script {
        answers,
        ..Script::default()
    })
    .await;
    assert_eq!(script.lock().prepared, 1);
    assert_eq!(script.lock().committed, [1, 1, 1, 1, 1]);
    assert_eq!(target.state.access(slot()), Access::ReadWrite);
    assert_eq!(keys(&target), ["attempt-1"]);
}

#[tokio::test]
async fn after_a_no_the_slot_is_dropped_and_prepared_again() {
    let answers = VecDeque::from([Answer::No, Answer::No, Answer::Yes]);
    let (target, script) = pull(Script {
        answers,
        ..Script::default()
    })
    .await;
    assert_eq!(script.lock().committed, [1, 2, 3]);
    assert_eq!(keys(&target), ["attempt-3"]);
    assert_eq!(target.context.counters.pulls_failed.get(), 2);
}

#[tokio::test]
async fn a_stream_that_is_cut_short_is_never_committed() {
    let (target, script) = pull(Script {
        cut_short: 2,
        ..Script::default()
    })
    .await;
    assert_eq!(script.lock().committed, [3]);
    assert_eq!(keys(&target), ["attempt-3"]);
}
