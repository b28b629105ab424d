package replica_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/authz/replica"
)

// The namespaces of one account are those of the whole list, and reading them
// costs what the account has, however many others there are.
func TestNamespacesOf(t *testing.T) {
	r, err := replica.Open(replica.Config{})
	if err != nil {
		t.Fatal(err)
	}
	load := func(account sallyport.AccountID, namespaces int) {
		t.Helper()
		b := replica.Batch{Account: account, Head: sallyport.Head{Epoch: 1, Revision: 1}}
		for i := range namespaces {
			o := object.Object{Kind: object.KindNamespace, ID: fmt.Sprintf("ns_%d", i), Data: object.Encode(object.Namespace{Name: fmt.Sprintf("n%d", i), Cell: "local"})}
			b.Objects = append(b.Objects, o)
			b.Digest.Toggle(o.Kind, o.ID, o.Data, true)
		}
		if err := r.Load(b); err != nil {
			t.Fatal(err)
		}
	}
	load("acme2", 3)
	alone := testing.AllocsPerRun(10, func() { r.NamespacesOf("acme2") })
	for i := range 500 {
		load(sallyport.AccountID(fmt.Sprintf("a%d", 2000+i)), 4)
	}
	if beside := testing.AllocsPerRun(10, func() { r.NamespacesOf("acme2") }); beside != alone {
		t.Errorf("%v allocations alone, %v beside 500 accounts", alone, beside)
	}
	for account, count := range map[sallyport.AccountID]int{"acme2": 3, "a2007": 4, "none2": 0} {
		all := slices.DeleteFunc(r.Namespaces(), func(ns replica.Namespace) bool { return ns.Account != account })
		got := r.NamespacesOf(account)
		for _, list := range [][]replica.Namespace{all, got} {
			slices.SortFunc(list, func(a, b replica.Namespace) int { return strings.Compare(a.FullName, b.FullName) })
		}
		if diff := cmp.Diff(all, got); len(got) != count || len(got) > 0 && diff != "" {
			t.Errorf("%s: %d namespaces, want %d; (-in all +its own):\n%s", account, len(got), count, diff)
		}
	}
}
