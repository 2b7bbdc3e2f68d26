// Package cache keeps results for a while and sees to it that one question is asked once at a time.
// It knows nothing of checks: values are of any type, and their owner says how large they are and
// whether they may be kept.
package cache
