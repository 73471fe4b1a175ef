{{/* What the operator may do, as operator/src/rbac.rs has it, a rule a line. In a namespace that it serves: */}}
{{- define "kubepbx.rules.served" -}}
- {apiGroups: [kubepbx.io], resources: [pbxes, pbxendpoints, dialplans, dispatchers], verbs: [get, list, watch]}
- {apiGroups: [kubepbx.io], resources: [pbxes/status, pbxendpoints/status, dialplans/status, dispatchers/status], verbs: [get, patch]}
# Owner references that block deletion ask for this where the API server checks them.
- {apiGroups: [kubepbx.io], resources: [pbxes/finalizers], verbs: [update]}
# Metadata of all; by name those referred to. Keys are made once; what is held comes and goes.
- {apiGroups: [""], resources: [secrets], verbs: [get, list, watch, create, delete]}
- {apiGroups: [""], resources: [pods], verbs: [get, list, watch, patch]}
- {apiGroups: [""], resources: [serviceaccounts, configmaps, services], verbs: [get, list, watch, create, patch, delete]}
- {apiGroups: [apps], resources: [deployments, daemonsets], verbs: [get, list, watch, create, patch, delete]}
- {apiGroups: [policy], resources: [poddisruptionbudgets], verbs: [get, list, watch, create, patch, delete]}
- {apiGroups: [networking.k8s.io], resources: [networkpolicies], verbs: [get, list, watch, create, patch, delete]}
- {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [get, create, update]}
- {apiGroups: [events.k8s.io], resources: [events], verbs: [create, patch]}
# The CPU of relays, where a Pbx scales by it.
- {apiGroups: [metrics.k8s.io], resources: [pods], verbs: [list]}
{{- end }}

{{/* In its own namespace, also where that is not served: who leads, and the certificate that it serves with. */}}
{{- define "kubepbx.rules.own" -}}
- {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [get, create, update]}
- {apiGroups: [""], resources: [secrets], verbs: [get, create, update]}
{{- end }}

{{/* In the whole cluster: who asks for configuration is known by the token that the cluster gave to its pod. */}}
{{- define "kubepbx.rules.cluster" -}}
- {apiGroups: [authentication.k8s.io], resources: [tokenreviews], verbs: [create]}
{{- end }}
