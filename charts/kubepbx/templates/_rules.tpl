{{/* In a namespace that it serves. */}}
{{- define "kubepbx.rules.served" -}}
- {apiGroups: [kubepbx.io], resources: [pbxes, pbxendpoints, dialplans, dispatchers], verbs: [get, list, watch]}
- {apiGroups: [kubepbx.io], resources: [pbxes/status, pbxendpoints/status, dialplans/status, dispatchers/status], verbs: [get, patch, update]}
# Owner references that block deletion.
- {apiGroups: [kubepbx.io], resources: [pbxes/finalizers], verbs: [update]}
- {apiGroups: [""], resources: [secrets, configmaps, services, serviceaccounts], verbs: [get, list, watch, create, patch, delete]}
- {apiGroups: [""], resources: [pods], verbs: [get, list, watch, patch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [get, list, watch]}
- {apiGroups: [apps], resources: [deployments, daemonsets], verbs: [get, list, watch, create, patch, delete]}
- {apiGroups: [policy], resources: [poddisruptionbudgets], verbs: [get, list, watch, create, patch, delete]}
- {apiGroups: [networking.k8s.io], resources: [networkpolicies], verbs: [get, list, watch, create, patch, delete]}
# The claim on the namespace.
- {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [get, list, watch, create, patch, update, delete]}
- {apiGroups: [events.k8s.io], resources: [events], verbs: [create, patch]}
{{- end }}

{{/* In its own namespace: who leads, and the certificate that it serves with. */}}
{{- define "kubepbx.rules.own" -}}
- {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [get, list, watch, create, patch, update]}
- {apiGroups: [""], resources: [secrets], verbs: [get, list, watch, create, patch, update]}
{{- end }}
