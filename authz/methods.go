package authz

import "github.com/sallyport-iam/sallyport"

// MethodScope says what a data-plane method works on. The zero value is none:
// such a method is nobody's.
type MethodScope uint8

const (
	// Open methods need no credential: health checks and what clients ask
	// before anything else.
	Open MethodScope = iota + 1
	// Namespace methods work in the namespace that the request names.
	Namespace
	// Cluster methods concern the whole data-plane deployment. With NoPermission
	// any working credential may call them; otherwise no tenant may.
	Cluster
	// ControlPlane methods manage namespaces. No tenant may call them on the
	// data plane, whatever he holds: it is done through the control plane.
	ControlPlane
)

// Need is what a data-plane method takes.
type Need struct {
	Scope      MethodScope
	Permission sallyport.Permission // in the namespace, for Namespace; at all, for Cluster
}

// MethodNeed looks a full gRPC method ("/package.Service/Method") up. Methods
// that it does not know must be denied. It does not allocate.
func MethodNeed(fullMethod string) (Need, bool) {
	n, ok := temporalMethods[fullMethod]
	return n, ok
}

// Writes reports whether the method is refused to read-only credentials.
func (n Need) Writes() bool { return n.Permission > sallyport.PermissionRead }

// Met reports whether a permission that is held in the method's namespace is
// enough for a Namespace method, under a credential that may be read-only.
func (n Need) Met(held sallyport.Permission, readOnly bool) bool {
	return n.Scope == Namespace && n.Permission != sallyport.NoPermission && held >= n.Permission && !(readOnly && n.Writes())
}
