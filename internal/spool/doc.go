// Package spool keeps what operators have said about services: one file an override, in one directory.
//
// Dir is the directory on disk, as the commands use it: atomic writes, tolerant reads. Index is the
// daemon's live view of it in memory: Lookup never answers from before a write that has returned.
package spool
