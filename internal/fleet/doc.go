// Package fleet coordinates the hosts of a fleet through etcd: overrides for many hosts, and permits that bound how many
// hosts are out of a service at once. It answers no request and speaks to no balancer.
//
// A Fleet is the daemon's part. It applies fleet overrides to the spool index, so that a lookup finds them like files
// of the spool; it publishes the state of this host; and it does the whole of `hadown --safe`. Everything that other
// packages show is a report.Fleet. No other package knows etcd.
//
// # Keys
//
// All keys begin with Options.Prefix. Values are JSON objects with a version "v" (model.go).
//
//	present/<host>             leased      which instance of the daemon is alive
//	state/<service>/<host>                 the state of a member; the key exists as long as the host is a member
//	applied/<host>                         the revision of overrides that the host obeys, and whether it has left
//	overrides/<scope>/<service>            an override or its lift record; scope is all, group:NAME or host:NAME
//	budgets/<service or *>                 how many members may be out
//	queue/<claim>              leased      a request for a permit; ordered by its create revision; a claim is <host>.<random>
//	permits/<host>                         the permit of a host for all its services
//	guard                                  written by every transaction that changes who may go out
//
// # An override
//
// An override of a scope has one key. It begins with a new random id and ends by its time or by a lift record in the
// same key:
//
//	absent ──set──▶ in force(id) ──lift──▶ lifted(id) ──set──▶ in force(new id)
//	                    │
//	                    └─ Expires passes on the host's clock: without effect, the key stays until it is written again
//
// Invariants:
//
//   - O1. A host that obeys id stops only when it reads a lift record of id, another id in the same key, or when the
//     time of id is over. A key that is gone changes nothing: the host keeps the override and marks it Lost. Another
//     daemon that has taken the name of the host changes nothing either, nor does a configuration with another name,
//     other groups, another state_dir or no section fleet: the file may be cut off.
//   - O2. A lifted id is never obeyed again. Hosts remember lifted ids for 30 days.
//   - O3. A host writes applied/<host> with revision r only after every override up to r is visible to every lookup and
//     is in the copy on disk. So a command that has seen r in all present hosts' keys can say that none of them answers
//     from before.
//   - O4. A value that cannot be read, or of a newer version, leaves the last readable value of its key in force and
//     stops applied/<host> from advancing.
//
// # A permit
//
//	            ┌────────────── refused, command gone, override not written ─────────────┐
//	            ▼                                                                        │
//	(none) ──▶ queued ──txn: budget, guard, present──▶ asked(claim) ──override in force──▶ used(claim) ──▶ (none)
//
// Invariants:
//
//   - P1. A permit exists from before the override is written until the balancers have the host up again. So a count of
//     permits and overrides is never too low.
//   - P2. A permit is granted in one transaction that compares guard, the host's own present key (its create revision
//     and lease), the queue entry of the claim, and the absence of another permit of the host. Two hosts that count at
//     the same revision cannot both be granted, and a claim whose entry was removed cannot be granted late. A used
//     permit gets further services in the same way: it becomes asked, Used has the services that stay if the claim ends.
//   - P3. Only the first entry of the queue that wants a service decides about it. An entry that waits for its balancers
//     lets others pass and keeps its place.
//   - P4. Nothing is written to the spool once the command has closed its connection. The daemon checks that last,
//     after the permit is granted and the balancers have agreed. A command that is stopped (SIGSTOP, ^Z) has its
//     connection open and cannot go on: its claim keeps its place, lets others pass, and holds no permit.
//   - P5. After any error but a definite refusal the outcome of a transaction is unknown. The claim id in the permit
//     tells: the daemon reads its own permit key after every reconnect and returns a permit whose claim no command
//     has. An asked permit without a living command is returned within 60 s.
//   - P6. A used permit is returned by the daemon alone: no override takes the host out, its checks have passed, and
//     every balancer known at the grant has reported UP after that. The daemon waits 2 minutes for a silent balancer.
//     Where no balancer reports, the check has to pass twice, 10 s apart. Before the return the host publishes its states
//     as up, so that no other host counts it as out without a permit; if etcd takes none, the return waits 10 s at most.
//   - P7. A failing check or an absence grants nothing by itself. An override that takes the host out already, and a
//     permit that it already holds, is granted without counting.
//
// # What a host believes
//
// Only linearizable reads count where a decision or an acknowledgement follows. The cluster id is part of the copy: an
// etcd with another id is an error by name, and nothing is taken from it. After a loss (an override without its key,
// an emptied or restored etcd) no permit is granted for twice the lease.
package fleet
