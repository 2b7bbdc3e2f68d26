// Package spool keeps what operators have said about services: one file an override, in one directory.
//
// Dir is the directory on disk, as the commands use it: atomic writes, tolerant reads. Index is the
// daemon's live view of it in memory: Lookup never answers from before a write that has returned.
//
// # Why no answer is stale
//
// A watcher alone is not enough. Between the return of a command and the moment when a goroutine has
// been woken, has read the event and has put it into memory, a request can be answered from the past;
// under load that was seen with one request of seven after a real command. So every Lookup asks the
// kernel itself, in this order:
//
//  1. FIONREAD on an inotify descriptor of our own: are there events that nobody has read?
//  2. The attention flags: has somebody read events that are not yet in memory?
//  3. The snapshot.
//
// The kernel queues the event of a rename, a write or a removal on the descriptor before the system call
// that caused it returns, and so before the command can exit. A Lookup that begins after that finds one
// of three things:
//
//   - The event is still queued. Step 1 sees it; the Lookup takes the lock, reads the events, reloads the
//     files they name, publishes, and answers.
//   - Somebody has taken it from the queue and is at work. He set attDirty before he read the queue, and
//     clears it after he has published. The queue and the flag are read in the same order here, so that an
//     empty queue in step 1 means that step 2 sees the flag, and the Lookup waits on the lock.
//   - He has published since. The flag was cleared after the snapshot was stored, and the snapshot is read
//     after the flag: it is the new one.
//
// Files are read after the events that name them were taken from the queue, so what is read is at least as
// new as they are. It may be newer: then more events are queued by now, and these are read as well before
// anything is published. That keeps two writes in order: who takes `all` away after having downed web never
// makes a reader see neither. A snapshot is immutable and behind one pointer for the same reason.
//
// What the kernel does not tell this machine is found otherwise. Events that it dropped: it says so, and
// the whole directory is read before the next answer. A directory that was removed or moved: the last known
// overrides stand until the path leads to a directory again; a Lookup that finds the last verification more
// than 4 s ago verifies first. One that was mounted, unmounted or mounted over ends no override: see home.go. No inotify instance left: every Lookup
// compares the time stamps of the directory and reads the files of its target. A network or FUSE file
// system, also one that is mounted later: it is read every 2 s besides; while its server hangs, the last
// known overrides stand and end at their time. Links that lead through subdirectories: read at every Lookup of
// their target. What nothing tells is a change made through a hard link in another directory or through
// a shared memory mapping; it shows with the next event of the file.
//
// fsnotify watches beside that. It is woken by the kernel when nobody asks, so that changes are logged
// and told when they happen; no answer depends on how soon that is.
//
// # What counts as an override
//
// Any regular file whose name is a Key, whatever is in it: ParseEntry never fails, and a file that cannot
// be read is down. Symbolic links count when they lead to a regular file in the directory.
package spool
