package replica

import (
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/api/sallyport/feed/v1"
)

// certificates remembers which client certificates were presented to which
// namespaces since the service was last told, and what it was told of them. It
// is guarded by uses.mu. All of it is bounded: strangers can make certificates
// as they like.
type certificates struct {
	presented map[seenKey]seenUse
	refused   map[seenName]int // refused certificates that were noted since
	since     time.Time
	told      map[seenCertificate]time.Time // when the chain was told last
}

// seenName is a namespace by its id.
type seenName struct {
	account   sallyport.AccountID
	namespace string
}

type seenCertificate struct {
	seenName
	fingerprint string
}

type seenKey struct {
	seenCertificate
	refused bool
}

type seenUse struct {
	evidence
	at     time.Time
	reason string // why it was refused
}

const (
	maxSeen        = 10_000 // that are not told yet; more are forgotten
	maxSeenRefused = 100    // an hour, of one namespace
	maxTold        = 20_000
	tellChainEvery = time.Hour
	maxReason      = 300 // bytes
)

// noteCertificate notes a decision with evidence.
func (u *uses) noteCertificate(d *Decision, at time.Time) {
	name := seenName{d.Account, d.seen.namespace}
	key := seenKey{seenCertificate{name, d.seen.by.Fingerprint}, !d.Allow}
	use := seenUse{evidence: d.seen, at: at}
	u.mu.Lock()
	defer u.mu.Unlock()
	_, known := u.presented[key]
	limit := maxSeen
	if !d.Allow {
		use.reason, limit = d.Detail(), maxSeen/2 // the other half is for those that are in use
	}
	if !known && (len(u.presented) >= limit || !d.Allow && !u.roomForRefused(name, at)) {
		return
	}
	if u.presented == nil {
		u.presented = map[seenKey]seenUse{}
	}
	u.presented[key] = use
}

// roomForRefused counts one more refused certificate of the namespace; false if
// there were too many in the hour.
func (c *certificates) roomForRefused(name seenName, at time.Time) bool {
	if c.refused == nil || at.Sub(c.since) >= time.Hour {
		c.refused, c.since = map[seenName]int{}, at
	}
	if c.refused[name] >= maxSeenRefused {
		return false
	}
	c.refused[name]++
	return true
}

// takeCertificates gives what was noted since it was last called.
func (u *uses) takeCertificates(now time.Time) []*feedv1.CertificateUse {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.presented) == 0 {
		return nil
	}
	list := make([]*feedv1.CertificateUse, 0, len(u.presented))
	for key, use := range u.presented {
		m := &feedv1.CertificateUse{Account: string(key.account), NamespaceId: key.namespace, Fingerprint: key.fingerprint,
			At: timestamppb.New(use.at), CaFingerprint: use.ca, Filter: int32(use.filter), Managed: use.managed, Refused: bounded(use.reason)}
		if key.refused {
			m.CaFingerprint = ""
		}
		if u.tellChain(key.seenCertificate, now) {
			for _, cert := range use.by.Certificates {
				m.Chain = append(m.Chain, cert.Raw)
			}
		}
		list = append(list, m)
	}
	u.presented = nil
	return list
}

// tellChain reports whether the chain was not told within the hour, and notes
// that it is now.
func (c *certificates) tellChain(of seenCertificate, now time.Time) bool {
	if last, told := c.told[of]; told && now.Sub(last) < tellChainEvery {
		return false
	}
	if c.told == nil || len(c.told) >= maxTold {
		c.told = map[seenCertificate]time.Time{}
	}
	c.told[of] = now
	return true
}

// tellChainsAgain forgets what was told of chains.
func (u *uses) tellChainsAgain() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.told = nil
}

// bounded cuts a text off that has something of the certificate in it.
func bounded(reason string) string {
	return strings.ToValidUTF8(reason[:min(len(reason), maxReason)], "")
}
