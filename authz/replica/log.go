package replica

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/replica/frame"
)

// A log is an account's file: a header, and a record for each part of each
// update that was applied, in order. Replaying it through apply gives the state
// again, a divergence included. A record is
//
//	length of the payload, 4 bytes big-endian
//	CRC-32C of the length and the first bytes of the previous sum, 4 bytes
//	payload: the part
//	sum: SHA-256 of the previous sum and the payload
//
// What a crash leaves can be told from damage: a crash cuts the file off within
// a record or leaves zeros at its end, where the checked length says how far the
// record should go. Anything else that does not fit is damage, and nothing of
// the file is used: less of the history than was acknowledged could bring
// revoked access back.
const (
	logMagic       = "sallyport replica 1\n"
	recordHeader   = 8
	maxRecord      = 64 << 20
	recordOverhead = recordHeader + sha256.Size
)

// errDamaged: a log that was changed after it was written.
var errDamaged = errors.New("the file is damaged")

func firstSum(account sallyport.AccountID) [sha256.Size]byte {
	return sha256.Sum256([]byte(logMagic + account))
}

func logHeader(account sallyport.AccountID) []byte {
	sum := firstSum(account)
	return append([]byte(logMagic), sum[:]...)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func recordCheck(length []byte, previous [sha256.Size]byte) uint32 {
	return crc32.Update(crc32.Checksum(length, castagnoli), castagnoli, previous[:8])
}

// appendRecord appends the record of a payload and gives the new sum.
func appendRecord(b, payload []byte, previous [sha256.Size]byte) ([]byte, [sha256.Size]byte) {
	var length [4]byte
	binary.BigEndian.PutUint32(length[:], uint32(len(payload)))
	b = append(b, length[:]...)
	b = binary.BigEndian.AppendUint32(b, recordCheck(length[:], previous))
	b = append(b, payload...)
	sum := chain(previous, payload)
	return append(b, sum[:]...), sum
}

func chain(previous [sha256.Size]byte, payload []byte) [sha256.Size]byte {
	h := sha256.New()
	h.Write(previous[:])
	h.Write(payload)
	return [sha256.Size]byte(h.Sum(nil))
}

// logReader reads a log of the account.
type logReader struct {
	r    *bufio.Reader
	size int64 // of the whole file
	at   int64 // where the next record begins
	sum  [sha256.Size]byte
}

// errTorn: the file ends within a record, as after a crash.
var errTorn = errors.New("the file ends within a record")

func readLog(r io.Reader, size int64, account sallyport.AccountID) (*logReader, error) {
	want := logHeader(account)
	if size < int64(len(want)) {
		return nil, errTorn
	}
	l := &logReader{r: bufio.NewReaderSize(r, 1<<16), size: size, at: int64(len(want)), sum: firstSum(account)}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(l.r, got); err != nil {
		return nil, fmt.Errorf("reading: %w", err)
	}
	if !bytes.Equal(got, want) {
		return nil, errDamaged
	}
	return l, nil
}

// next gives the next record's payload: io.EOF after the last, errTorn for an
// end that a crash may have left, errDamaged for everything else.
func (l *logReader) next() ([]byte, error) {
	left := l.size - l.at
	if left == 0 {
		return nil, io.EOF
	}
	if left < recordHeader {
		return nil, errTorn
	}
	var header [recordHeader]byte
	if _, err := io.ReadFull(l.r, header[:]); err != nil {
		return nil, fmt.Errorf("reading: %w", err)
	}
	if binary.BigEndian.Uint32(header[4:]) != recordCheck(header[:4], l.sum) {
		return nil, l.zeros(header[:])
	}
	n := int64(binary.BigEndian.Uint32(header[:4]))
	if n > maxRecord {
		return nil, errDamaged
	}
	if left < n+recordOverhead {
		return nil, errTorn
	}
	payload := make([]byte, n+sha256.Size)
	if _, err := io.ReadFull(l.r, payload); err != nil {
		return nil, fmt.Errorf("reading: %w", err)
	}
	sum := chain(l.sum, payload[:n])
	if !bytes.Equal(sum[:], payload[n:]) {
		return nil, l.zeros(payload)
	}
	l.sum, l.at = sum, l.at+n+recordOverhead
	return payload[:n], nil
}

// zeros gives errTorn if what was read last and all that follows are zeros:
// space that was allocated and not written before a crash.
func (l *logReader) zeros(read []byte) error {
	for {
		if len(bytes.TrimLeft(read, "\x00")) > 0 {
			return errDamaged
		}
		read = make([]byte, 1<<12)
		n, err := l.r.Read(read)
		if err == io.EOF {
			return errTorn
		}
		if err != nil {
			return fmt.Errorf("reading: %w", err)
		}
		read = read[:n]
	}
}

// replay gives each whole update of the log to apply. It returns how long the
// log is with whole updates only, and its sum there.
func (l *logReader) replay(apply func(frame.Part) error) (size int64, sum [sha256.Size]byte, err error) {
	size, sum = l.at, l.sum
	var pending assembly
	for {
		payload, err := l.next()
		if errors.Is(err, io.EOF) || errors.Is(err, errTorn) {
			return size, sum, nil
		}
		if err != nil {
			return size, sum, err
		}
		part, err := frame.Unmarshal(payload)
		if err != nil {
			return size, sum, fmt.Errorf("%w: %w", errDamaged, err)
		}
		update, whole, err := pending.add(part)
		if err != nil {
			return size, sum, fmt.Errorf("%w: %w", errDamaged, err)
		}
		if !whole {
			continue
		}
		if err := apply(update); err != nil {
			return size, sum, fmt.Errorf("%w: %w", errDamaged, err)
		}
		size, sum = l.at, l.sum
	}
}

// An assembly puts an update together from its parts.
type assembly struct {
	update frame.Part
	begun  bool
}

// add gives the whole update with its last part.
func (a *assembly) add(p frame.Part) (update frame.Part, whole bool, err error) {
	if !a.begun {
		a.update, a.begun = p, true
	} else {
		u := &a.update
		if p.Account != u.Account || p.Kind != u.Kind || p.Head != u.Head || p.Follows != u.Follows || p.Digest != u.Digest {
			return frame.Part{}, false, fmt.Errorf("a part for account %s within an update of account %s", p.Account, u.Account)
		}
		u.Objects = append(u.Objects, p.Objects...)
		u.Seq = p.Seq
	}
	if !p.Last {
		return frame.Part{}, false, nil
	}
	update = a.update
	*a = assembly{}
	return update, true, nil
}
