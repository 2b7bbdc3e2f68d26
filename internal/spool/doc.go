// Package spool stores overrides: what operators have said about services. An override is one file in one directory.
//
// Dir is the directory on disk, as the commands use it: atomic writes, tolerant reads. Index is the daemon's live view
// of it in memory: Lookup never answers from before a write that has returned.
//
// # Why no answer is stale
//
// A watcher alone is not enough. A command returns, and then a goroutine has to wake, read the event and update the
// memory. A request in between would be answered from the past; under load that was seen with one request of seven
// after a real command. So every Lookup asks the kernel itself, in this order:
//
//  1. FIONREAD on our own inotify descriptor: are there unread events?
//  2. The attention flags: were events read that are not yet in memory?
//  3. The snapshot.
//
// The kernel queues the event of a rename, a write or a removal before the system call that caused it returns, and so
// before the command can exit. A Lookup that begins after that finds one of three cases:
//
//   - The event is still queued. Step 1 sees it. The Lookup takes the lock, reads the events, reloads the files they
//     name, publishes a new snapshot, and answers.
//   - Another goroutine has read the event and is updating the memory. It has set attDirty before it read the queue, and
//     clears it after it has published. The Lookup reads the queue first and the flag second. So when step 1 finds the
//     queue empty, step 2 sees the flag, and the Lookup waits for the lock.
//   - Another goroutine has published since. It stored the snapshot before it cleared the flag, and the Lookup reads the
//     flag before the snapshot. So it reads the new snapshot.
//
// An update reads a file after it has read the event that names it, so that it reads the file as of the event or newer.
// If it is newer, more events are queued by now, and the update reads these too before it publishes. That keeps two
// writes in order: an operator who downs web and then lifts all never makes a Lookup find neither. For the same reason
// a snapshot is immutable and behind one pointer.
//
// # Overrides of the fleet
//
// Index.SetFleet adds overrides that have no file. They are in the same snapshot as the files, so that a Lookup does
// nothing more for them. SetFleet publishes its snapshot under the lock before it returns. A Lookup that begins after
// that either reads this snapshot or a later one, or it takes the lock and publishes a later one itself. Every later
// snapshot is made from the last one and from the table of the fleet, which only SetFleet replaces.
//
// The rest follows from the snapshot. The end of an override of the fleet outdates results as the end of a file does.
// An override that has expired is skipped by the clock of the Lookup, before any update: the snapshot also holds the
// weaker overrides of the key, and the strongest one of these decides. What happens to the directory, lost or mounted
// over, only changes the table of files.
//
// # What the kernel does not report
//
//   - Dropped events: the kernel reports that it dropped some, and the next Lookup reads the whole directory.
//   - A directory that was removed or moved: the last known overrides stand until the path leads to a directory again.
//     A Lookup verifies the directory if the last verification is more than 4 s old.
//   - A directory that was mounted, unmounted or mounted over: no override ends by that, see mount.go.
//   - No inotify instance left: every Lookup compares the time stamps of the directory and reads the files of its target.
//   - A network or FUSE file system, also one that is mounted later: the directory is also read every 2 s. While the
//     file server hangs the last known overrides stand, and expire at their time.
//   - Links into subdirectories: every Lookup of their target reads them.
//   - A change through a hard link in another directory or through a shared memory mapping is not noticed. It shows with
//     the next event of the file.
//
// An fsnotify watcher also wakes a goroutine without a request, so that changes are logged and notified when they
// happen. No answer depends on how soon that is.
//
// # What counts as an override
//
// Any regular file whose name is a Key, whatever its content: ParseEntry never fails, and a file that cannot be read is
// down. A symbolic link counts when it leads to a regular file in the directory.
package spool
