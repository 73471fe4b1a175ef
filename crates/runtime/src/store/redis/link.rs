//! The connection to Redis: one, shared, made when needed. Every use of it is bounded in time; whatever goes wrong
//! with it drops it, so that the next use begins with a new one (a server that froze, is loading, or was replaced).

use contract::location::StoreError;
use redis::aio::{MultiplexedConnection, PubSub};
use redis::{Client, Cmd, FromRedisValue, Pipeline, RedisError, ScriptInvocation};
use std::future::Future;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

/// The longest that one round trip takes, connecting included.
pub(super) const LIMIT: Duration = Duration::from_millis(800);

/// After a failed attempt nobody tries to connect for this long.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Default)]
struct State {
    connection: Option<MultiplexedConnection>,
    /// Tells one connection from the next.
    generation: u64,
    failed: Option<(Instant, String)>,
}

pub(super) struct Link {
    client: Client,
    state: Mutex<State>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The address may hold a password.
        f.write_str("Link")
    }
}

impl Link {
    pub(super) fn new(url: &str) -> Result<Self, StoreError> {
        let client = Client::open(url).map_err(|e| StoreError::Unavailable(format!("store address: {e}")))?;
        Ok(Self { client, state: Mutex::default() })
    }

    pub(super) async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        self.with(async |mut connection| command.query_async(&mut connection).await).await
    }

    pub(super) async fn pipeline<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, StoreError> {
        self.with(async |mut connection| commands.query_async(&mut connection).await).await
    }

    pub(super) async fn invoke<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, StoreError> {
        self.with(async |mut connection| script.invoke_async(&mut connection).await).await
    }

    /// A connection of its own that receives what is published.
    pub(super) async fn subscribe(&self, channel: &str) -> Result<PubSub, StoreError> {
        let subscribed = async {
            let mut pubsub = self.client.get_async_pubsub().await?;
            pubsub.subscribe(channel).await?;
            Ok::<_, RedisError>(pubsub)
        };
        match timeout(LIMIT, subscribed).await {
            Ok(done) => done.map_err(|e| unavailable(&e)),
            Err(_) => Err(late()),
        }
    }

    async fn with<T, F>(&self, use_it: impl FnOnce(MultiplexedConnection) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let end = Instant::now() + LIMIT;
        let (connection, generation) = match tokio::time::timeout_at(end, self.connection()).await {
            Ok(connected) => connected?,
            Err(_) => return Err(late()),
        };
        let error = match tokio::time::timeout_at(end, use_it(connection)).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => unavailable(&error),
            Err(_) => late(),
        };
        let mut state = self.state.lock().await;
        if state.generation == generation {
            state.connection = None;
        }
        Err(error)
    }

    async fn connection(&self) -> Result<(MultiplexedConnection, u64), StoreError> {
        let mut state = self.state.lock().await;
        if let Some(connection) = &state.connection {
            return Ok((connection.clone(), state.generation));
        }
        if let Some((_, why)) = state.failed.as_ref().filter(|(at, _)| at.elapsed() < PAUSE) {
            return Err(StoreError::Unavailable(why.clone()));
        }
        match timeout(LIMIT, self.client.get_multiplexed_async_connection()).await {
            Ok(Ok(connection)) => {
                state.generation += 1;
                state.failed = None;
                state.connection = Some(connection.clone());
                Ok((connection, state.generation))
            }
            Ok(Err(error)) => {
                state.failed = Some((Instant::now(), error.to_string()));
                Err(unavailable(&error))
            }
            Err(_) => Err(late()),
        }
    }
}

fn unavailable(error: &RedisError) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

fn late() -> StoreError {
    StoreError::Unavailable("no answer in time".into())
}
