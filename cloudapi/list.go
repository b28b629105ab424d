package cloudapi

import (
	"google.golang.org/protobuf/proto"

	"github.com/sallyport-iam/sallyport"
)

// maxAnswer bounds the items of a list's answer, encoded: clients take 4 MB
// unless they are told otherwise. A single item may be larger.
const maxAnswer = 1 << 20

// fitting counts how many items fit into an answer of which some bytes are
// used: at least one when none are.
func fitting[W proto.Message](items []W, used int) int {
	for i, item := range items {
		size := proto.Size(item)
		if used > 0 && used+size > maxAnswer {
			return i
		}
		used += size
	}
	return len(items)
}

// pageThatFits reads a page of a list, and a shorter one when that is too
// large for an answer, so that the token goes on after the last item in it.
func pageThatFits[W proto.Message](p sallyport.Page, read func(sallyport.Page) ([]W, string, error)) ([]W, string, error) {
	for {
		items, next, err := read(p)
		if err != nil {
			return nil, "", err
		}
		n := fitting(items, 0)
		if n == len(items) {
			return items, next, nil
		}
		p.Size = n
	}
}
