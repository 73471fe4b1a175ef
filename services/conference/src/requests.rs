//! What is asked of rooms from outside: the view `rooms`, commands to rooms and to their members.

use crate::core::{Input, LegId};
use crate::room::state::{MemberOrder, Order, Rooms};
use runtime::Running;
use runtime::running::Done;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

/// Questions that wait.
const REQUESTS: usize = 64;

/// A question or a command, and whom to tell.
pub(crate) enum Request {
    /// All rooms.
    View(oneshot::Sender<Value>),
    /// Something for the room of this name.
    Room(String, Order, oneshot::Sender<Done>),
    /// Something for a member.
    Member(LegId, MemberOrder, oneshot::Sender<Done>),
}

/// Offers the view and the commands.
pub(crate) fn offer(running: &mut Running) -> mpsc::Receiver<Request> {
    let (asker, requests) = mpsc::channel(REQUESTS);
    let viewer = asker.clone();
    running.view("rooms", move || {
        let viewer = viewer.clone();
        async move {
            let (tell, told) = oneshot::channel();
            // A conference that is gone has no rooms.
            let _ = viewer.send(Request::View(tell)).await;
            told.await.unwrap_or_else(|_| json!([]))
        }
    });
    let orders = [
        ("lock", Order::Lock),
        ("unlock", Order::Unlock),
        ("record", Order::Record),
        ("stop-recording", Order::StopRecording),
        ("end", Order::End),
    ];
    for (verb, order) in orders {
        let asker = asker.clone();
        running
            .command("rooms", verb, move |name| command(asker.clone(), move |tell| Request::Room(name, order, tell)));
    }
    let orders = [
        ("mute", MemberOrder::Mute),
        ("unmute", MemberOrder::Unmute),
        ("deafen", MemberOrder::Deafen),
        ("undeafen", MemberOrder::Undeafen),
        ("kick", MemberOrder::Kick),
    ];
    for (verb, order) in orders {
        let asker = asker.clone();
        running.command("members", verb, move |id| {
            let id = LegId(id.parse().unwrap_or(0));
            command(asker.clone(), move |tell| Request::Member(id, order, tell))
        });
    }
    requests
}

async fn command(asker: mpsc::Sender<Request>, make: impl FnOnce(oneshot::Sender<Done>) -> Request) -> Done {
    let (tell, told) = oneshot::channel();
    let _ = asker.send(make(tell)).await;
    told.await.unwrap_or(Done::Gone)
}

/// Answers a request; what is left of it is for the core.
pub(crate) fn take(rooms: &Rooms, request: Request) -> Input {
    let done = |there| if there { Done::Done } else { Done::Unknown };
    // Who asked and went away needs no answer.
    match request {
        Request::View(tell) => {
            let _ = tell.send(view(rooms));
            Input::Tick
        }
        Request::Room(name, order, tell) => {
            let _ = tell.send(done(rooms.has(&name)));
            Input::Room(name, order)
        }
        Request::Member(id, order, tell) => {
            let _ = tell.send(done(rooms.member(id).is_some()));
            Input::Member(id, order)
        }
    }
}

fn view(rooms: &Rooms) -> Value {
    let member = |id: &LegId| {
        let member = rooms.member(*id)?;
        Some(json!({
            "id": id.0.to_string(),
            "from": member.from,
            "admin": member.admin,
            "joined": member.voice.joined,
            "muted": member.voice.muted,
            "deaf": member.voice.deaf,
            "talking": member.talking,
            "since": member.since.as_secs(),
        }))
    };
    let room = |(name, room): (&str, &crate::room::state::Room)| {
        json!({
            "room": name,
            "locked": room.locked,
            "recording": room.recording,
            "since": room.since.as_secs(),
            "members": room.members.iter().filter_map(member).collect::<Vec<_>>(),
        })
    };
    rooms.rooms().map(room).collect()
}
