//! Runs scripts in the Lua state of the client's thread.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use annulus_proto::tenants::TenantId;
use lru::LruCache;
use mlua::state::{GcIncParams, GcMode};
use mlua::{Function, HookTriggers, Lua, MultiValue, Table, Value};
use parking_lot::Mutex;

use super::call::Call;
use super::raised::{self, PRELUDE, Raised};
use super::redis_api::{Random, Shared};
use super::sandbox::{self, SCRIPT, Sandbox};
use super::to_reply::Writer;
use super::watchdog::{Running, Watchdog};
use super::{Cache, Script, ScriptId, Scripts};
use crate::error::{CommandError, Outcome};
use crate::exclusive::Exclusive;
use crate::execute::Context;
use crate::resp::{Args, Reply};

/// Scripts that a thread keeps compiled.
const COMPILED_MAX: NonZeroUsize = NonZeroUsize::new(200).unwrap();
/// A tenant's script may run for so long, since other tenants' commands wait meanwhile.
const TENANT_SCRIPT_MS_MAX: u64 = 100;
/// After so many instructions the watchdog is asked. Few, since one instruction may be a long function of Lua's.
const INSTRUCTIONS: u32 = 500;

/// What is to run.
pub struct Request<'r> {
    /// The script.
    pub script: &'r Script,
    /// Its `KEYS`.
    pub keys: Args<'r>,
    /// Its `ARGV`.
    pub argv: Args<'r>,
    /// Whether commands that write are refused.
    pub read_only: bool,
}

/// How Lua collects garbage while there is room: seldom, since most scripts leave little.
const CALM: (i32, i32) = (600, 200);
/// And when there is not: at the limit it doesn't look for garbage, so it has to look for it before.
const PRESSED: (i32, i32) = (120, 400);

fn pace((pause, step_multiplier): (i32, i32)) -> GcMode {
    let parameters = GcIncParams::default();
    GcMode::Incremental(parameters.pause(pause).step_multiplier(step_multiplier))
}

thread_local! {
    /// None before the first script. Taken out while one runs.
    static ENGINE: RefCell<Option<Engine>> = const { RefCell::new(None) };
}

/// Runs a script and writes what it returns.
pub fn run<'a>(
    context: &mut Context<'a>,
    exclusive: &mut Exclusive<'a>,
    request: &Request<'_>,
    reply: &mut Reply,
) -> Outcome {
    let mut engine = Engine::take(&context.node.scripts)?;
    let tenant = context.session.keyspace.id();
    let limit_ms = context.node.settings.script_ms_max();
    let limit = Duration::from_millis(match tenant {
        TenantId::CLUSTER => limit_ms,
        _ => limit_ms.min(TENANT_SCRIPT_MS_MAX),
    });
    engine
        .shared
        .random
        .set(Random::drawn(context.node.store.random()));
    // What tenants say is not for the log of whoever runs the node.
    engine.shared.may_log.set(tenant == TenantId::CLUSTER);
    engine.watchdog.begin(tenant, limit);
    let outcome = engine.run(context, exclusive, request, reply);
    engine.watchdog.end();
    engine.give_back();
    outcome
}

/// Compiles a script that is not to run now; one of `known` that can't be compiled is forgotten.
pub fn check(scripts: &Arc<Scripts>, known: &Mutex<Cache>, script: &Script) -> Outcome {
    let mut engine = Engine::take(scripts)?;
    let outcome = engine.compiled(known, script).map(drop);
    engine.give_back();
    outcome
}

/// An error that a script did not catch, and where it arose.
struct Uncaught {
    text: String,
    place: Option<(String, usize)>,
}

type LastError = Rc<RefCell<Option<Uncaught>>>;

struct Engine {
    /// Whose scripts these are.
    scripts: Arc<Scripts>,
    flushes: u64,
    sandbox: Sandbox,
    shared: Shared,
    watchdog: Rc<Watchdog>,
    running: Arc<Running>,
    last_error: LastError,
    compiled: LruCache<ScriptId, Function, foldhash::fast::RandomState>,
    /// A state that takes more is looked after more often, and not kept.
    bytes_at_ease: usize,
    is_pressed: Rc<Cell<bool>>,
}

impl Drop for Engine {
    fn drop(&mut self) {
        let mut running = self.scripts.running.lock();
        running.retain(|other| !Arc::ptr_eq(other, &self.running));
    }
}

impl Engine {
    fn new(scripts: &Arc<Scripts>) -> mlua::Result<Self> {
        let running = Arc::new(Running::default());
        let watchdog = Rc::new(Watchdog::new(Arc::clone(&running)));
        let shared = Shared::default();
        let last_error = LastError::default();
        let noted = Rc::clone(&last_error);
        let sandbox = Sandbox::new(&watchdog, &shared, scripts.state_bytes_max, move |lua, value| {
            noted.replace(Some(uncaught(lua, &value)));
        })?;
        let lua = &sandbox.lua;
        lua.set_memory_limit(scripts.state_bytes_max)?;
        lua.gc_set_mode(pace(CALM));
        let bytes_at_ease = lua.used_memory() + scripts.state_bytes_max / 8;
        let is_pressed = Rc::new(Cell::new(false));
        let (dog, pressed) = (Rc::clone(&watchdog), Rc::clone(&is_pressed));
        let triggers = HookTriggers::new().every_nth_instruction(INSTRUCTIONS);
        lua.set_global_hook(triggers, move |lua, _| {
            dog.check()?;
            if !pressed.get() && lua.used_memory() > bytes_at_ease {
                pressed.set(true);
                lua.gc_set_mode(pace(PRESSED));
            }
            Ok(mlua::VmState::Continue)
        })?;
        scripts.running.lock().push(Arc::clone(&running));
        let hasher = foldhash::fast::RandomState::default();
        Ok(Self {
            scripts: Arc::clone(scripts),
            flushes: scripts.flushes.load(Ordering::Relaxed),
            bytes_at_ease,
            is_pressed,
            sandbox,
            shared,
            watchdog,
            running,
            last_error,
            compiled: LruCache::with_hasher(COMPILED_MAX, hasher),
        })
    }

    /// The thread's own, or a new one.
    fn take(scripts: &Arc<Scripts>) -> Result<Self, CommandError> {
        if let Some(engine) = ENGINE.take().filter(|engine| engine.is_current(scripts)) {
            return Ok(engine);
        }
        Self::new(scripts).map_err(|error| {
            let why = raised::plain_message(&error);
            CommandError::Other(format!("ERR no Lua state could be made: {why}"))
        })
    }

    /// Keeps it for the next script, unless it isn't as it was.
    fn give_back(mut self) {
        if self.tidy() {
            ENGINE.set(Some(self));
        }
    }

    /// Whether it belongs to these scripts, and no flush came since it was made.
    fn is_current(&self, scripts: &Arc<Scripts>) -> bool {
        Arc::ptr_eq(&self.scripts, scripts) && self.flushes == scripts.flushes.load(Ordering::Relaxed)
    }

    fn compiled(&mut self, known: &Mutex<Cache>, script: &Script) -> Result<Function, CommandError> {
        if let Some(function) = self.compiled.get(&script.id) {
            return Ok(function.clone());
        }
        let function = sandbox::compile(&self.sandbox.lua, script.program(), SCRIPT).map_err(|error| {
            known.lock().remove(script.id);
            let why = raised::plain_message(&error);
            CommandError::Other(format!("ERR Error compiling script (new function): {why}"))
        })?;
        self.compiled.put(script.id, function.clone());
        Ok(function)
    }

    fn run<'a>(
        &mut self,
        context: &mut Context<'a>,
        exclusive: &mut Exclusive<'a>,
        request: &Request<'_>,
        reply: &mut Reply,
    ) -> Outcome {
        let function = self.compiled(&context.space().scripts, request.script)?;
        self.last_error.take();
        self.shared.resp3.set(false);
        let call = RefCell::new(Call {
            context,
            exclusive,
            read_only: request.read_only,
            watchdog: &self.watchdog,
            bytes_max: self.scripts.state_bytes_max,
        });
        let (call, resp3) = (&call, &*self.shared.resp3);
        let Sandbox {
            lua,
            globals,
            redis,
            run,
            ..
        } = &self.sandbox;
        let returned = lua.scope(|scope| {
            redis.raw_set(
                "call",
                scope.create_function(move |lua, args: MultiValue| {
                    running(call)?.call(lua, &args, resp3.get())
                })?,
            )?;
            redis.raw_set(
                "pcall",
                scope.create_function(move |lua, args: MultiValue| {
                    running(call)?.pcall(lua, &args, resp3.get())
                })?,
            )?;
            globals.raw_set("KEYS", list(lua, request.keys)?)?;
            globals.raw_set("ARGV", list(lua, request.argv)?)?;
            run.call::<(bool, Value)>(function)
        });
        match returned {
            Ok((true, value)) => {
                let mut writer = Writer {
                    reply,
                    resp3: resp3.get(),
                    watchdog: &self.watchdog,
                };
                writer.write(&value)
            }
            Ok((false, value)) => Err(self.error(&value, request.script.id)),
            Err(error) => Err(self.error(&Value::Error(Box::new(error)), request.script.id)),
        }
    }

    /// The error of a script, as Redis shows it.
    fn error(&self, value: &Value, id: ScriptId) -> CommandError {
        // Lua doesn't ask about errors of memory.
        let error = match (self.watchdog.doom(), self.last_error.take()) {
            (Some(doom), noted) => Uncaught {
                text: doom.to_string(),
                place: noted.and_then(|noted| noted.place),
            },
            (None, Some(noted)) => noted,
            (None, None) => uncaught(&self.sandbox.lua, value),
        };
        let place = match error.place {
            Some((source, line)) => format!(", on {source}:{line}."),
            None => String::new(),
        };
        CommandError::Other(format!("{} script: {id}{place}", error.text))
    }

    /// Takes away what the script left; whether the state may be used again.
    fn tidy(&mut self) -> bool {
        let Sandbox { lua, tidy, .. } = &self.sandbox;
        if self.watchdog.doom().is_some() || tidy.call::<()>(()).is_err() {
            return false;
        }
        let is_large = |lua: &Lua| lua.used_memory() > self.bytes_at_ease;
        if self.is_pressed.take() {
            lua.gc_set_mode(pace(CALM));
        }
        if is_large(lua) && lua.gc_collect().is_err() {
            return false;
        }
        self.running.set_bytes(lua.used_memory());
        !is_large(lua)
    }
}

/// What runs the commands of the script that is running.
fn running<'s, 'c, 'a>(call: &'s RefCell<Call<'c, 'a>>) -> mlua::Result<std::cell::RefMut<'s, Call<'c, 'a>>> {
    call.try_borrow_mut()
        .map_err(|_| raised::reply("ERR a command can't run inside another"))
}

fn list(lua: &Lua, args: Args<'_>) -> mlua::Result<Table> {
    let list = lua.create_table_with_capacity(args.len(), 0)?;
    for (index, arg) in (1..).zip(args.from(0)) {
        list.raw_seti(index, lua.create_string(arg)?)?;
    }
    Ok(list)
}

/// What an uncaught error says. Where it arose is found only while Lua still knows.
fn uncaught(lua: &Lua, value: &Value) -> Uncaught {
    let text = match value {
        Value::Error(error) => match error.downcast_ref::<Raised>() {
            Some(Raised::Reply(text)) => text.clone(),
            Some(Raised::End(doom)) => doom.to_string(),
            Some(Raised::Message(text)) => format!("ERR {text}"),
            Some(Raised::Thrown(value)) => return uncaught(lua, value),
            None => format!("ERR {}", raised::plain_message(error)),
        },
        Value::Table(table) => match table.raw_get::<Value>("err") {
            Ok(Value::String(text)) => text.to_string_lossy(),
            _ => "ERR the script raised a table without the field 'err'".to_owned(),
        },
        other => format!("ERR {}", other.to_string().unwrap_or_default()),
    };
    Uncaught {
        text,
        place: place(lua),
    }
}

/// The line of the script that runs: that of the function that raised an error, or of its caller when that is one
/// of the sandbox's.
fn place(lua: &Lua) -> Option<(String, usize)> {
    const LEVELS_MAX: usize = 10;
    (1..LEVELS_MAX)
        .map_while(|level| {
            lua.inspect_stack(level, |frame| {
                let source = frame.source().source.map(Cow::into_owned);
                (source, frame.current_line())
            })
        })
        .filter_map(|(source, line)| Some((source?, line?)))
        .find(|(source, _)| source != PRELUDE)
}
