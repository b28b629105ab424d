// Package frame is the unit of the feed: an update of one account, in parts
// that are small enough to be sent. The service makes frames, authorizers apply
// them and keep them on disk.
package frame

import (
	"iter"
	"math"
	"slices"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
)

// Kind says what an update is.
type Kind uint8

const (
	Snapshot Kind = iota + 1 // all objects of the account
	Delta                    // those that changed after Follows
	Drop                     // the account is not the authorizer's any more
)

func (k Kind) String() string {
	return [...]string{"unknown", "snapshot", "delta", "drop"}[k]
}

// Part is an update of one account, or a part of one.
type Part struct {
	Seq     int64 // in its stream; zero on disk
	Account sallyport.AccountID
	Kind    Kind
	Last    bool           // the update is whole
	Follows sallyport.Head // after which a Delta's objects changed; zero otherwise
	Head    sallyport.Head // after the update
	Digest  object.Digest  // of the account's objects after the update
	Objects []object.Object
	Proved  []sallyport.Head // what is held and in the history of Head
}

// Supersedes reports whether the update takes the place of what is held at the
// head: it is known to be in the update's history, or an operator began a higher
// epoch. What is not superseded must be kept: a restored backup must not bring
// revoked access back.
func (p Part) Supersedes(held sallyport.Head) bool {
	return held == (sallyport.Head{}) || held == p.Head || held == p.Follows || held.Epoch < p.Head.Epoch || slices.Contains(p.Proved, held)
}

// MaxHeads is how many histories of an account are told apart.
const MaxHeads = 4

// Keeps gives those of the held heads, oldest first, that the update does not
// supersede and that stay beside its own. When they are too many one that stands
// for all of them is left, which allows nothing and which only a higher epoch ends.
func (p Part) Keeps(held []sallyport.Head) []sallyport.Head {
	var kept []sallyport.Head
	var epoch int64
	for _, h := range held {
		if !p.Supersedes(h) {
			kept, epoch = append(kept, h), max(epoch, h.Epoch)
		}
	}
	if len(kept) >= MaxHeads {
		return []sallyport.Head{{Epoch: epoch, Revision: math.MaxInt64}}
	}
	return kept
}

// MaxSize bounds the encoded size of a Part that Split made, unless a single
// object is larger. It is small for the sake of slow lines: a part that arrives
// is a sign of life.
const MaxSize = 1 << 16

// overhead is more than what a Part takes besides its objects, and an object
// besides its strings.
const (
	partOverhead   = 1024
	objectOverhead = 32
)

// Split gives the update in parts of at most MaxSize; there is at least one.
func Split(update Part) iter.Seq[Part] {
	return func(yield func(Part) bool) {
		rest := update.Objects
		for {
			n, size := 0, partOverhead
			for n < len(rest) {
				o := &rest[n]
				size += objectOverhead + len(o.Kind) + len(o.ID) + len(o.Data)
				if size > MaxSize && n > 0 {
					break
				}
				n++
			}
			part := update
			part.Objects, rest = rest[:n], rest[n:]
			part.Last = len(rest) == 0
			if !yield(part) || part.Last {
				return
			}
		}
	}
}
