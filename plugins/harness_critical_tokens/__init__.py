"""Critical tokens: find the token that ruins a solution, and align against it (cDPO; Lin et al., 2024)."""
