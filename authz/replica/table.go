package replica

import "hash/maphash"

// A table is an immutable hash table from strings to values that can be
// matched with their string: extendible hashing into small buckets, in chunks
// of bucketsPerChunk. A change makes a new table that shares all but one
// bucket, one chunk and the list of chunks with the old one, whatever the size.
// Readers need no lock.
type table[V any] struct {
	seed   maphash.Seed
	chunks [][][]slot[V]
	bits   uint8 // there are 1<<bits buckets
	count  int
}

type slot[V any] struct {
	hash  uint64
	value V
}

const (
	chunkBits       = 8
	bucketsPerChunk = 1 << chunkBits
	fullBucket      = 8 // the average size at which the buckets are doubled
)

func newTable[V any](seed maphash.Seed) table[V] {
	return table[V]{seed: seed, chunks: [][][]slot[V]{make([][]slot[V], 1)}}
}

func (t *table[V]) hash(key string) uint64 { return maphash.String(t.seed, key) }

// bucket holds the slots among which those of the hash are.
func (t *table[V]) bucket(hash uint64) []slot[V] {
	i := hash >> (64 - t.bits)
	return t.chunks[i>>chunkBits][i&(bucketsPerChunk-1)]
}

// all calls yield for each value until it returns false.
func (t *table[V]) all(yield func(V) bool) {
	for _, chunk := range t.chunks {
		for _, bucket := range chunk {
			for i := range bucket {
				if !yield(bucket[i].value) {
					return
				}
			}
		}
	}
}

// A tableEdit changes a table that nobody else has seen yet. It copies a
// chunk when it first writes to it and a bucket at every write.
type tableEdit[V any] struct {
	table[V]
	owned []bool // by chunk; nil: not even the list of chunks is ours
}

func edit[V any](t table[V]) *tableEdit[V] { return &tableEdit[V]{table: t} }

// writable gives the bucket's place in a chunk that may be written to.
func (e *tableEdit[V]) writable(hash uint64) *[]slot[V] {
	if e.owned == nil {
		e.chunks = append([][][]slot[V](nil), e.chunks...)
		e.owned = make([]bool, len(e.chunks))
	}
	i := hash >> (64 - e.bits)
	c := i >> chunkBits
	if !e.owned[c] {
		e.chunks[c] = append([][]slot[V](nil), e.chunks[c]...)
		e.owned[c] = true
	}
	return &e.chunks[c][i&(bucketsPerChunk-1)]
}

// set puts the value in place of the one of the hash that same accepts, or
// adds it if there is none.
func (e *tableEdit[V]) set(hash uint64, same func(V) bool, value V) {
	place := e.writable(hash)
	for i, s := range *place {
		if s.hash == hash && same(s.value) {
			bucket := append([]slot[V](nil), *place...)
			bucket[i].value = value
			*place = bucket
			return
		}
	}
	bucket := make([]slot[V], len(*place)+1)
	copy(bucket, *place)
	bucket[len(*place)] = slot[V]{hash, value}
	*place = bucket
	if e.count++; e.count > fullBucket<<e.bits {
		e.double()
	}
}

// remove takes the value of the hash that same accepts out.
func (e *tableEdit[V]) remove(hash uint64, same func(V) bool) {
	place := e.writable(hash)
	for i, s := range *place {
		if s.hash == hash && same(s.value) {
			bucket := make([]slot[V], 0, len(*place)-1)
			bucket = append(bucket, (*place)[:i]...)
			*place = append(bucket, (*place)[i+1:]...)
			e.count--
			return
		}
	}
}

// double splits each bucket in two.
func (e *tableEdit[V]) double() {
	bits := e.bits + 1
	buckets := 1 << bits
	per := min(buckets, bucketsPerChunk)
	chunks := make([][][]slot[V], buckets/per)
	for c := range chunks {
		chunks[c] = make([][]slot[V], per)
	}
	for i := range buckets / 2 {
		old := e.chunks[i>>chunkBits][i&(bucketsPerChunk-1)]
		var upper int
		bit := uint64(1) << (64 - bits)
		for j := range old {
			if old[j].hash&bit != 0 {
				upper++
			}
		}
		zero, one := make([]slot[V], 0, len(old)-upper), make([]slot[V], 0, upper)
		for j := range old {
			if old[j].hash&bit == 0 {
				zero = append(zero, old[j])
			} else {
				one = append(one, old[j])
			}
		}
		chunks[2*i>>chunkBits][2*i&(bucketsPerChunk-1)] = zero
		chunks[(2*i+1)>>chunkBits][(2*i+1)&(bucketsPerChunk-1)] = one
	}
	e.chunks, e.bits = chunks, bits
	e.owned = make([]bool, len(chunks))
	for c := range e.owned {
		e.owned[c] = true
	}
}
