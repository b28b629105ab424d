package frame

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/api/sallyport/feed/v1"
	"github.com/sallyport-iam/sallyport/authz/object"
)

var kinds = map[Kind]feedv1.Frame_Kind{
	Snapshot: feedv1.Frame_KIND_SNAPSHOT,
	Delta:    feedv1.Frame_KIND_DELTA,
	Drop:     feedv1.Frame_KIND_DROP,
}

// Proto gives the part as it is sent.
func (p Part) Proto() *feedv1.Frame {
	f := &feedv1.Frame{Seq: p.Seq, Account: string(p.Account), Kind: kinds[p.Kind], Last: p.Last,
		Follows: HeadProto(p.Follows), Head: HeadProto(p.Head), Digest: p.Digest[:], Proved: HeadsProto(p.Proved), Objects: make([]*feedv1.Object, len(p.Objects))}
	for i, o := range p.Objects {
		f.Objects[i] = &feedv1.Object{Kind: string(o.Kind), Id: o.ID, Deleted: o.Deleted, Data: o.Data}
	}
	return f
}

// FromProto reads a part; it fails for what cannot be one.
func FromProto(f *feedv1.Frame) (Part, error) {
	p := Part{Seq: f.GetSeq(), Account: sallyport.AccountID(f.GetAccount()), Last: f.GetLast()}
	for kind, code := range kinds {
		if code == f.GetKind() {
			p.Kind = kind
		}
	}
	if p.Kind == 0 || !p.Account.Valid() || len(f.GetDigest()) != len(p.Digest) {
		return p, fmt.Errorf("a frame of kind %s for account %q with a digest of %d bytes", f.GetKind(), f.GetAccount(), len(f.GetDigest()))
	}
	copy(p.Digest[:], f.GetDigest())
	var err error
	if p.Follows, err = HeadFromProto(f.GetFollows()); err != nil {
		return p, err
	}
	if p.Head, err = HeadFromProto(f.GetHead()); err != nil {
		return p, err
	}
	if p.Proved, err = HeadsFromProto(f.GetProved()); err != nil {
		return p, err
	}
	for _, o := range f.GetObjects() {
		p.Objects = append(p.Objects, object.Object{Kind: object.Kind(o.GetKind()), ID: o.GetId(), Deleted: o.GetDeleted(), Data: o.GetData()})
	}
	return p, nil
}

// Marshal gives the part as bytes, for the disk.
func (p Part) Marshal() ([]byte, error) { return proto.Marshal(p.Proto()) }

// Unmarshal reads what Marshal gave.
func Unmarshal(data []byte) (Part, error) {
	var f feedv1.Frame
	if err := proto.Unmarshal(data, &f); err != nil {
		return Part{}, fmt.Errorf("reading a frame: %w", err)
	}
	return FromProto(&f)
}

// HeadProto gives nil for the zero Head.
func HeadProto(h sallyport.Head) *feedv1.Head {
	if h == (sallyport.Head{}) {
		return nil
	}
	return &feedv1.Head{Epoch: h.Epoch, Revision: h.Revision, Hash: h.Hash[:]}
}

// HeadFromProto is the inverse of HeadProto.
func HeadFromProto(h *feedv1.Head) (sallyport.Head, error) {
	var head sallyport.Head
	if h == nil {
		return head, nil
	}
	head.Epoch, head.Revision = h.GetEpoch(), h.GetRevision()
	if copy(head.Hash[:], h.GetHash()) != len(head.Hash) || len(h.GetHash()) != len(head.Hash) || head.Epoch < 0 || head.Revision < 0 {
		return head, errors.New("a head whose hash is not 32 bytes or whose numbers are negative")
	}
	return head, nil
}

// HeadsProto gives the heads in order.
func HeadsProto(heads []sallyport.Head) []*feedv1.Head {
	list := make([]*feedv1.Head, len(heads))
	for i, h := range heads {
		list[i] = HeadProto(h)
	}
	return list
}

// HeadsFromProto is the inverse of HeadsProto. It fails for more than MaxHeads.
func HeadsFromProto(list []*feedv1.Head) ([]sallyport.Head, error) {
	if len(list) > MaxHeads {
		return nil, fmt.Errorf("%d heads of an account, at most %d can be", len(list), MaxHeads)
	}
	var heads []sallyport.Head
	for _, h := range list {
		head, err := HeadFromProto(h)
		if err != nil {
			return nil, err
		}
		heads = append(heads, head)
	}
	return heads, nil
}
