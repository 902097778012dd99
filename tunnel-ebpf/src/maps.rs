//! The maps, each behind the few operations that have a meaning.

use core::{
    ffi::c_void,
    ptr::{from_ref, null, null_mut},
};

use aya_ebpf::{
    bindings::{
        BPF_F_NO_PREALLOC, BPF_NOEXIST, BPF_SK_STORAGE_GET_F_CREATE,
        bpf_map_type::BPF_MAP_TYPE_SOCKMAP,
    },
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, SkStorage},
    helpers::generated::{
        bpf_map_lookup_elem, bpf_sk_release, bpf_sk_storage_delete, bpf_sk_storage_get,
    },
    macros::btf_map,
};
use tunnel_ebpf::{
    Address, Backend, ClientDst, Config, Counters, Endpoint, MAX_BACKENDS, MAX_NAMESPACES,
    MAX_NODES, MAX_OWN_ADDRESSES, MAX_PENDING, MAX_PORTS, MAX_SERVICES, MAX_UPLINKS, Namespace,
    NodeEntry, Pending, PortRule, SERVICE_PORT_WORDS, ServiceCounters, ServiceEntry, SlotEntry,
    Tuple, backend_key, service_port_bit, service_port_word,
};

#[btf_map(name = "ports")]
static PORTS: HashMap<u16, PortRule, MAX_PORTS> = HashMap::new();
#[btf_map(name = "nodes")]
static NODES: HashMap<Address, NodeEntry, MAX_NODES, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();
#[btf_map(name = "slots")]
static SLOTS: HashMap<u32, SlotEntry, MAX_NODES, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();
#[btf_map(name = "own_addresses")]
static OWN_ADDRESSES: HashMap<Address, u64, MAX_OWN_ADDRESSES, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();
#[btf_map(name = "uplinks")]
static UPLINKS: HashMap<u32, u64, MAX_UPLINKS> = HashMap::new();
#[btf_map(name = "namespaces")]
static NAMESPACES: LruHashMap<u64, Namespace, MAX_NAMESPACES> = LruHashMap::new();
#[btf_map(name = "config")]
static CONFIG: Array<Config, 1> = Array::new();
#[btf_map(name = "heartbeat")]
static HEARTBEAT: Array<u64, 1> = Array::new();
#[btf_map(name = "listeners")]
static LISTENERS: Listeners = Listeners::new();
#[btf_map(name = "client_dst")]
static CLIENT_DST: SkStorage<ClientDst> = SkStorage::new();
#[btf_map(name = "accepted_dst")]
static ACCEPTED_DST: SkStorage<Endpoint> = SkStorage::new();
#[btf_map(name = "pending_dst")]
static PENDING_DST: HashMap<Tuple, Pending, MAX_PENDING> = HashMap::new();
#[btf_map(name = "counters")]
static COUNTERS: PerCpuArray<Counters, 1> = PerCpuArray::new();
#[btf_map(name = "service_ports")]
static SERVICE_PORTS: Array<u64, SERVICE_PORT_WORDS> = Array::new();
#[btf_map(name = "services")]
static SERVICES: HashMap<Endpoint, ServiceEntry, MAX_SERVICES, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();
#[btf_map(name = "backends")]
static BACKENDS: HashMap<u64, Backend, MAX_BACKENDS, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();
#[btf_map(name = "service_owners")]
static SERVICE_OWNERS: Array<u64, 2> = Array::new();
#[btf_map(name = "service_dst")]
static SERVICE_DST: SkStorage<ClientDst> = SkStorage::new();
#[btf_map(name = "service_counts")]
static SERVICE_COUNTS: PerCpuArray<ServiceCounters, 1> = PerCpuArray::new();

/// A sockmap with values of 8 bytes: only then does the kernel tell user space which socket is in a
/// slot. The library's has 4. The fields are types for the loader to read, as libbpf lays them out.
#[repr(C)]
struct Listeners {
    r#type: *const [i32; BPF_MAP_TYPE_SOCKMAP as usize],
    key: *const u32,
    value: *const u64,
    max_entries: *const [i32; 2],
}

// SAFETY: nobody follows the pointers; the loader replaces the definition by a map.
unsafe impl Sync for Listeners {}

impl Listeners {
    const fn new() -> Self {
        Self {
            r#type: null(),
            key: null(),
            value: null(),
            max_entries: null(),
        }
    }
}

#[inline(always)]
pub(crate) fn port_rule(port: u16) -> Option<PortRule> {
    // SAFETY: copied at once; a concurrent update at worst yields the old or the new rule.
    lookup::<PortRule>(raw(&PORTS), u64::from(port)).map(|rule| unsafe { *rule })
}

#[inline(always)]
pub(crate) fn node(address: &Address) -> Option<NodeEntry> {
    // SAFETY: copied at once; a concurrent update at worst yields the old or the new entry.
    unsafe { NODES.get(address).copied() }
}

#[inline(always)]
pub(crate) fn settings() -> Option<&'static Config> {
    // SAFETY: an array's elements live as long as the array.
    lookup::<Config>(raw(&CONFIG), 0).map(|config| unsafe { &*config })
}

/// When the server last showed life, `CLOCK_MONOTONIC` nanoseconds.
#[inline(always)]
pub(crate) fn last_heartbeat() -> Option<u64> {
    // SAFETY: copied at once, and written as one word.
    lookup::<u64>(raw(&HEARTBEAT), 0).map(|beat| unsafe { *beat })
}

/// The address that a slot of the ranges stands for.
#[inline(always)]
pub(crate) fn slot(slot: u32) -> Option<Address> {
    // SAFETY: copied at once; an address is written when the slot is given to a node, before the node
    // has it.
    lookup::<SlotEntry>(raw(&SLOTS), u64::from(slot)).map(|entry| unsafe { (*entry).address })
}

/// Whether the server's network namespace has this address.
#[inline(always)]
pub(crate) fn is_own_address(address: &Address) -> bool {
    // SAFETY: only whether it is there counts.
    unsafe { OWN_ADDRESSES.get(address) }.is_some()
}

/// Whether other machines are reached by the interface with this number.
#[inline(always)]
pub(crate) fn is_uplink(interface: u32) -> bool {
    lookup::<u64>(raw(&UPLINKS), u64::from(interface)).is_some()
}

/// How connects of a network namespace fare. Programs on other CPUs may write to it as well; every
/// field is one word.
#[inline(always)]
pub(crate) fn namespace(cookie: u64) -> Option<*mut Namespace> {
    lookup(raw(&NAMESPACES), cookie)
}

#[inline(always)]
pub(crate) fn insert_namespace(cookie: u64, namespace: &Namespace) {
    // Another CPU may have been quicker, and what it noted is as good.
    let _ = NAMESPACES.insert(cookie, namespace, u64::from(BPF_NOEXIST));
}

/// Whether the slot holds a live listening socket.
#[inline(always)]
pub(crate) fn has_listener(slot: u32) -> bool {
    with_listener(slot, |_| ()).is_some()
}

/// Lends the live listening socket in the slot, if there is one.
#[inline(always)]
pub(crate) fn with_listener<R>(slot: u32, use_it: impl FnOnce(*mut c_void) -> R) -> Option<R> {
    let socket: *mut c_void = lookup(raw(&LISTENERS), u64::from(slot))?;
    let result = use_it(socket);
    // SAFETY: the socket was acquired by the lookup.
    unsafe { bpf_sk_release(socket) };
    Some(result)
}

/// Notes on the client's socket what it asked for; false when there is no memory.
#[inline(always)]
pub(crate) fn remember_client_dst(socket: *mut c_void, dst: &ClientDst) -> bool {
    // An older value would be found instead of made anew, and writing over it takes a memory copy
    // that the verifier only lets CAP_PERFMON do. Nobody can look in between: the socket is locked.
    forget_client_dst(socket);
    storage(&CLIENT_DST, socket, Some(dst)).is_some()
}

#[inline(always)]
pub(crate) fn client_dst_of(socket: *mut c_void) -> Option<&'static ClientDst> {
    // SAFETY: the kernel keeps the storage while the program runs.
    storage(&CLIENT_DST, socket, None).map(|slot| unsafe { &*slot })
}

#[inline(always)]
pub(crate) fn forget_client_dst(socket: *mut c_void) {
    // SAFETY: a socket storage map and a socket that the verifier knows. An absent entry is fine.
    unsafe { bpf_sk_storage_delete(raw(&CLIENT_DST), socket) };
}

/// Gives the accepted socket its original destination; false when there is no memory.
#[inline(always)]
pub(crate) fn remember_accepted_dst(socket: *mut c_void, original: &Endpoint) -> bool {
    storage(&ACCEPTED_DST, socket, Some(original)).is_some()
}

/// Notes a connect that is on its way, unless there is a note under the same tuple.
#[inline(always)]
pub(crate) fn insert_pending(tuple: &Tuple, pending: &Pending) -> Result<(), i32> {
    PENDING_DST.insert(tuple, pending, u64::from(BPF_NOEXIST))
}

/// Notes it in place of what is noted under the same tuple.
#[inline(always)]
pub(crate) fn replace_pending(tuple: &Tuple, pending: &Pending) -> Result<(), i32> {
    PENDING_DST.insert(tuple, pending, 0)
}

#[inline(always)]
pub(crate) fn pending(tuple: &Tuple) -> Option<*mut Pending> {
    PENDING_DST.get_ptr_mut(tuple)
}

#[inline(always)]
pub(crate) fn remove_pending(tuple: &Tuple) {
    // An absent entry is fine.
    let _ = PENDING_DST.remove(tuple);
}

#[inline(always)]
pub(crate) fn this_cpu_counters() -> Option<*mut Counters> {
    lookup(raw(&COUNTERS), 0)
}

#[inline(always)]
pub(crate) fn this_cpu_service_counters() -> Option<*mut ServiceCounters> {
    lookup(raw(&SERVICE_COUNTS), 0)
}

/// Whether some Service has this port. The kernel makes this lookup a load.
#[inline(always)]
pub(crate) fn is_port_of_services(port: u16) -> bool {
    let word = lookup::<u64>(raw(&SERVICE_PORTS), u64::from(service_port_word(port)));
    // SAFETY: an element of an array, read as one word.
    word.is_some_and(|word| unsafe { *word } & service_port_bit(port) != 0)
}

/// Whether the Services are those of the server that opened the gate.
#[inline(always)]
pub(crate) fn has_services_of(owner: u64) -> bool {
    owner != 0 && (services_owner(0) == Some(owner) || services_owner(1) == Some(owner))
}

#[inline(always)]
fn services_owner(number: u64) -> Option<u64> {
    // SAFETY: an element of an array, read as one word.
    lookup::<u64>(raw(&SERVICE_OWNERS), number).map(|owner| unsafe { *owner })
}

/// The Service that clients dial so.
#[inline(always)]
pub(crate) fn service(dialled: &Endpoint) -> Option<ServiceEntry> {
    // SAFETY: copied at once, and looked at as a whole afterwards.
    let entry = unsafe { SERVICES.get(dialled).copied() };
    entry.filter(|entry| entry.is_of(dialled))
}

/// The backend of a Service that has this number.
#[inline(always)]
pub(crate) fn backend(service: u32, number: u32) -> Option<Endpoint> {
    let key = backend_key(service, number);
    // SAFETY: copied at once, and looked at as a whole afterwards.
    let backend = lookup::<Backend>(raw(&BACKENDS), key).map(|backend| unsafe { *backend });
    let whole = backend.filter(|backend| backend.is_of(key));
    whole.map(|backend| backend.endpoint)
}

/// Notes on the client's socket which Service it dialled; false when there is no memory.
#[inline(always)]
pub(crate) fn remember_service_dst(socket: *mut c_void, dst: &ClientDst) -> bool {
    // As for what redirected sockets remember.
    forget_service_dst(socket);
    storage(&SERVICE_DST, socket, Some(dst)).is_some()
}

#[inline(always)]
pub(crate) fn service_dst_of(socket: *mut c_void) -> Option<&'static ClientDst> {
    // SAFETY: the kernel keeps the storage while the program runs.
    storage(&SERVICE_DST, socket, None).map(|slot| unsafe { &*slot })
}

#[inline(always)]
pub(crate) fn forget_service_dst(socket: *mut c_void) {
    // SAFETY: a socket storage map and a socket that the verifier knows. An absent entry is fine.
    unsafe { bpf_sk_storage_delete(raw(&SERVICE_DST), socket) };
}

/// Looks up a key of up to 8 bytes. On the stack it takes all 8 of them, for the reason that
/// `Endpoint` gives; the map reads as many as its keys have, from the first on.
#[inline(always)]
fn lookup<V>(map: *mut c_void, key: u64) -> Option<*mut V> {
    const { assert!(cfg!(target_endian = "little")) };
    // SAFETY: a map, and a key of at least its size.
    let value = unsafe { bpf_map_lookup_elem(map, from_ref(&key).cast_mut().cast()) };
    (!value.is_null()).then_some(value.cast())
}

/// The socket's value in a socket storage map; with `create`, made from it when absent.
#[inline(always)]
fn storage<T>(
    map: &'static SkStorage<T>,
    socket: *mut c_void,
    create: Option<&T>,
) -> Option<*mut T> {
    let (value, flags) = match create {
        Some(value) => (
            from_ref(value).cast_mut().cast(),
            u64::from(BPF_SK_STORAGE_GET_F_CREATE),
        ),
        None => (null_mut(), 0),
    };
    // SAFETY: a socket storage map, a socket that the verifier knows, a value of the map's type.
    let slot = unsafe { bpf_sk_storage_get(raw(map), socket, value, flags) };
    (!slot.is_null()).then_some(slot.cast())
}

#[inline(always)]
fn raw<T>(map: &'static T) -> *mut c_void {
    from_ref(map).cast_mut().cast()
}
