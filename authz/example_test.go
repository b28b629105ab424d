package authz_test

import (
	"fmt"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz"
)

func ExampleCheck() {
	developer := sallyport.Caller{
		Account:   "f45a2",
		Principal: sallyport.Principal{Kind: sallyport.User, ID: "u_ann"},
		Access: sallyport.Access{
			Roles:      sallyport.Roles(sallyport.RoleDeveloper),
			Namespaces: map[sallyport.NamespaceID]sallyport.Permission{"ns_orders": sallyport.PermissionWrite},
		},
	}
	orders := authz.Resource{Account: "f45a2", Namespace: "ns_orders"}
	fmt.Println(authz.Check(developer, authz.DataWrite, orders))
	fmt.Println(authz.Check(developer, authz.NamespaceDelete, orders))
	fmt.Println(authz.Check(developer, authz.UserList, authz.Resource{Account: "zzzzz"}))
	// Output:
	// <nil>
	// cloud.namespace.delete needs the namespace permission admin; you have the account role developer, the namespace permission write
	// there is no such account, or you have no access to it
}
