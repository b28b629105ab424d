package cloudapi

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sallyport-iam/sallyport"
)

// enum is a protobuf enumeration in Go.
type enum interface {
	~int32
	protoreflect.Enum
	fmt.Stringer
}

// enumText is an enumeration's value as old clients know it, in lower case and
// without its prefix: "active" of RESOURCE_STATE_ACTIVE.
func enumText[E enum](value E, prefix string) string {
	if value == 0 {
		return ""
	}
	return strings.ToLower(strings.TrimPrefix(value.String(), prefix))
}

// enumOf reads an enumeration that an old client may have sent as text instead.
// text is how old clients spell a value. Zero when neither is there.
func enumOf[E enum](field string, value E, old string, text func(E) string) (E, error) {
	values := value.Descriptor().Values()
	if values.ByNumber(value.Number()) == nil {
		return 0, sallyport.InvalidField(field, "is the unknown value %d; use one of %s", value.Number(), names(values))
	}
	if old == "" {
		return value, nil
	}
	for i := range values.Len() {
		e := E(values.Get(i).Number())
		if e == 0 || text(e) != old {
			continue
		}
		if value != 0 && value != e {
			return 0, sallyport.InvalidField(field, "is %s, but %s_deprecated says %q; send one of the two", value, field, old)
		}
		return e, nil
	}
	return 0, sallyport.InvalidField(field+"_deprecated", "is not one of the known texts; send %s instead", field)
}

func names(values protoreflect.EnumValueDescriptors) string {
	var list []string
	for i := range values.Len() {
		list = append(list, string(values.Get(i).Name()))
	}
	return strings.Join(list, ", ")
}
