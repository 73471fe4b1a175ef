module kubepbx/cluster/door

go 1.24.0
