package temporal

import (
	"testing"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/replica"
)

func TestJudge(t *testing.T) {
	at := func(epoch, revision int64) sallyport.Head { return sallyport.Head{Epoch: epoch, Revision: revision} }
	unknown := sallyport.Head{}
	for _, test := range []struct {
		name       string
		registered sallyport.Head
		evidence   evidence
		want       verdict
	}{
		{"removed before our eyes", at(1, 5), evidence{replica.Held, at(1, 9), true, true, false}, deleteNow},
		{"removed in the change that it was registered at", at(1, 5), evidence{replica.Held, at(1, 5), true, true, false}, deleteNow},
		{"a copy that has never had it", at(1, 5), evidence{replica.Held, at(1, 9), false, true, false}, deleteLater},
		{"a copy that is behind", at(1, 5), evidence{replica.Held, at(1, 4), true, true, false}, keep},
		{"a copy of an epoch before", at(2, 5), evidence{replica.Held, at(1, 9), true, true, false}, keep},
		{"restored to before it, and said to be right", at(1, 5), evidence{replica.Held, at(2, 9), true, true, false}, askOperator},
		{"the same, revisions behind", at(1, 50), evidence{replica.Held, at(2, 9), true, true, false}, askOperator},
		{"registered at an unknown head", unknown, evidence{replica.Held, at(1, 9), true, true, false}, askOperator},
		{"held at an unknown head", at(1, 5), evidence{replica.Held, unknown, true, true, false}, keep},
		{"removed as the account's last", at(1, 5), evidence{replica.Dropped, at(1, 9), true, true, true}, deleteNow},
		{"removed as the last, and never seen", at(1, 5), evidence{replica.Dropped, at(1, 9), false, true, true}, deleteLater},
		{"removed as the last in a new epoch", at(1, 5), evidence{replica.Dropped, at(2, 9), true, true, true}, askOperator},
		{"the account left", at(1, 5), evidence{replica.Dropped, unknown, true, false, false}, deleteLater},
		{"the account left before this process began", at(1, 5), evidence{replica.Dropped, unknown, false, true, false}, deleteLater},
		{"the account left, by an older copy", at(1, 5), evidence{replica.Dropped, unknown, false, false, false}, keep},
		{"the account left in this epoch", at(1, 5), evidence{replica.Dropped, at(1, 6), true, true, false}, deleteLater},
		{"the account left at a head before", at(1, 5), evidence{replica.Dropped, at(1, 4), true, true, false}, keep},
		{"the account left in a new epoch", at(1, 5), evidence{replica.Dropped, at(2, 6), true, true, false}, askOperator},
		{"two histories", at(1, 5), evidence{replica.Diverged, at(1, 9), true, true, false}, keep},
		{"stuck", at(1, 5), evidence{replica.Stuck, at(1, 9), true, true, false}, keep},
		{"not received", at(1, 5), evidence{replica.Absent, unknown, true, true, false}, keep},
	} {
		if got := judge(registered{head: test.registered}, test.evidence); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}
