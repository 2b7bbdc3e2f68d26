//go:build unix

package spool

import "log/slog"

// IndexOptions are the options of OpenIndex; the zero value is usable.
type IndexOptions struct {
	Log      *slog.Logger // nil discards
	OnChange func(Change) // called in order from one goroutine; nil for nobody
}

// Change is one change of what is said about a key.
type Change struct {
	Key      Key
	Old, New *Entry // nil: no override
	Expired  bool   // it ended by itself
}

// View is what the overrides say about one target at one instant.
type View struct {
	Override *Entry // the strongest one that covers the target (widest among equals); nil when nothing was said. Read-only.
	Epoch    uint64 // counts ended overrides on the whole host at this instant; store it with a result
	Ended    uint64 // a result stored with Epoch < Ended is from before an override of this target ended: never use it
}
