//! The turns of groups on the thread that loads.
//!
//! A group may have thousands of requests under way, each with a connection and a load to look after. If each was a task of the
//! thread's, another group's one request would have its turn after all of them. So all that is done for a group is one task,
//! in its lane: the thread goes round the groups, and each has a short turn in which its own tasks follow each other.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use hyper::rt::Executor;
use parking_lot::Mutex;
use std::future::{Future, poll_fn};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

use crate::clock;

/// A group works for so long before the others have their turn.
const TURN_MAX: Duration = Duration::from_micros(300);

/// What lanes are worked on by: one thread, which looks at its sockets after every turn.
pub fn runtime() -> std::io::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .event_interval(1)
        .build()
}

type Task = BoxFuture<'static, ()>;

/// Where a group's tasks are put, by the thread that works on them.
#[derive(Clone)]
pub struct Lane(Arc<Ends>);

struct Ends {
    tasks: mpsc::UnboundedSender<Task>,
    /// Until the first task comes.
    to_do: Mutex<Option<mpsc::UnboundedReceiver<Task>>>,
}

impl Lane {
    /// One without tasks.
    pub fn new() -> Self {
        let (tasks, to_do) = mpsc::unbounded_channel();
        let to_do = Mutex::new(Some(to_do));
        Self(Arc::new(Ends { tasks, to_do }))
    }

    /// Works on that in the group's turns. Within a runtime.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        // It is received as long as there is a sender: what works on it ends with the last one.
        self.0.tasks.send(Box::pin(task)).unwrap_or_default();
        if let Some(to_do) = self.0.to_do.lock().take() {
            tokio::spawn(work(to_do));
        }
    }
}

impl<F> Executor<F> for Lane
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.spawn(task);
    }
}

/// A task that rests while its group's turn is over.
struct InTurn {
    task: Task,
    turn_ends: Arc<Mutex<Instant>>,
}

impl Future for InTurn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if clock::monotonic() >= *self.turn_ends.lock() {
            // Two of them in a row have the others left alone, too.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.task.as_mut().poll(context)
    }
}

/// Works on all tasks, until there are none and nobody is left who could bring one.
async fn work(mut to_do: mpsc::UnboundedReceiver<Task>) {
    let mut running = FuturesUnordered::new();
    let turn_ends = Arc::new(Mutex::new(clock::monotonic()));
    let mut may_come = true;
    poll_fn(|context| {
        let end = clock::monotonic() + TURN_MAX;
        *turn_ends.lock() = end;
        loop {
            while may_come {
                match to_do.poll_recv(context) {
                    Poll::Ready(Some(task)) => running.push(InTurn {
                        task,
                        turn_ends: Arc::clone(&turn_ends),
                    }),
                    Poll::Ready(None) => may_come = false,
                    Poll::Pending => break,
                }
            }
            match running.poll_next_unpin(context) {
                Poll::Ready(None) if may_come => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(())) if clock::monotonic() >= end => {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(Some(())) => {}
            }
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::sync::oneshot;
    use tokio::task::yield_now;

    use super::*;

    /// Works for about as long as it takes to look at what a connection brought.
    fn work_a_little() {
        let begun = clock::monotonic();
        while begun.elapsed() < TURN_MAX / 3 {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn one_task_of_a_group_isnt_kept_waiting_by_a_thousand_of_another() {
        runtime().unwrap().block_on(async {
            let (greedy, modest) = (Lane::new(), Lane::new());
            let (worked, (ended, has_ended)) = (Arc::new(AtomicU64::new(0)), oneshot::channel());
            for _ in 0..1000 {
                let worked = Arc::clone(&worked);
                greedy.spawn(async move {
                    loop {
                        work_a_little();
                        worked.fetch_add(1, Ordering::Relaxed);
                        yield_now().await;
                    }
                });
            }
            modest.spawn(async move {
                for _ in 0..20 {
                    yield_now().await;
                }
                ended.send(()).unwrap();
            });
            has_ended.await.unwrap();
            // Three fit into a turn, and a fourth begins before it is over.
            let worked = worked.load(Ordering::Relaxed);
            assert!(worked <= 2 * 22 * 4, "{worked}");
        });
    }

    #[tokio::test]
    async fn every_task_of_a_group_has_its_turn() {
        let lane = Lane::new();
        let (ended, mut all_ended) = mpsc::unbounded_channel();
        for number in 0..100 {
            let ended = ended.clone();
            lane.spawn(async move {
                for _ in 0..3 {
                    work_a_little();
                    yield_now().await;
                }
                ended.send(number).unwrap();
            });
        }
        drop((ended, lane));
        let mut numbers = Vec::new();
        while let Some(number) = all_ended.recv().await {
            numbers.push(number);
        }
        numbers.sort_unstable();
        assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    }
}
