package spool

// API sketch; internal/spool's author replaces this file by dir.go, index.go, ...
//
//	func ValidService(s string) bool                  // [.a-zA-Z0-9_-]+, not . or .., at most MaxName bytes
//	func ParseKey(name string) (Key, error)           // inverse of Name; error says what is wrong with the name
//	func (k Key) Name() string
//	func (k Key) Check() error                        // may a command write it? pattern, lengths, host without port, all with a port
//	func ParseEntry(k Key, content []byte) Entry      // total: any content is an override
//	func (e Entry) Marshal() []byte                   // JSON the Python tools can read
//	func (e Entry) Expired(now time.Time) bool
//	func (e Entry) Line() string                      // "Service web in down state since ... until ...: reason", section 1 of CONTRACT.md
//	func (s State) String() string                    // "", "up", "drain", "down", "maint": the words of the file
//
//	type Dir struct{ ... }
//	func OpenDir(root string) (*Dir, error)           // creates it 0750 when missing (its parent must exist)
//	func (d *Dir) Root() string
//	func (d *Dir) Write(e Entry) error                // atomic; keeps Created as CONTRACT.md section 2 says when e.Created is zero
//	func (d *Dir) Remove(k Key) error                 // nil when there was nothing
//	func (d *Dir) Read(k Key) (Entry, error)          // fs.ErrNotExist when nothing is said; expired entries count as nothing said
//	func (d *Dir) List() ([]Entry, error)             // sorted by name, without expired ones
//	func (d *Dir) Close() error
//
//	type IndexOptions struct { Log *slog.Logger; OnChange func(Change) }
//	type Change struct { Key Key; Old, New *Entry; Expired bool }  // nil: no override
//	func OpenIndex(d *Dir, o IndexOptions) (*Index, error)
//	func (x *Index) Lookup(service, host string, port uint16, here bool) View
//	func (x *Index) List() []Entry                    // fresh, sorted by name
//	func (x *Index) Stats() Stats                     // counters: events, reloads, rescans, overflows, errors, ignored
//	func (x *Index) Close() error                     // ends its goroutines, closes its descriptors
//
//	// View is what the overrides say about one target at one instant.
//	type View struct {
//		Override *Entry // the strongest one that covers the target (widest among equals); nil when nothing was said. Read-only.
//		Epoch    uint64 // counts ended overrides on the whole host at this instant; store it with a result
//		Ended    uint64 // a result stored with Epoch < Ended is from before an override of this target ended: never use it
//	}
